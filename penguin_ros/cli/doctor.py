"""penguin doctor: what is wrong here, and the command that mends it. Knows nothing of what is looked at (doctor/)."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penguin_ros.core.config import PenguinConfig
    from penguin_ros.doctor.finding import Finding
    from penguin_ros.doctor.surroundings import Surroundings

EXAMPLES = """examples:
  penguin doctor                                      this machine, and the shipped nano engine
  penguin doctor --config config/orin_nx.yaml         also the engine, the settings and the cameras of that file
  penguin doctor --engine engines/penguin-vl-2b-orin-nx-16gb --json

Exit status 1 when there is a fault. What cannot be looked at here is said and is no fault.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    from penguin_ros.dds.options import add_network_options

    parser = subparsers.add_parser(
        'doctor', help='look for what is wrong, with a remedy for each finding',
        description='Look at Python and its packages, Jetson, JetPack, GPU, power mode and clocks, memory and swap, the engine '
                    'against its manifest and this machine, network buffers, and the cameras: topics, QoS, rate, encoding. '
                    'Changes nothing; each finding comes with the command that mends it.',
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', metavar='FILE.yaml', help="the node's parameter file (config/*.yaml)")
    parser.add_argument('--engine', metavar='ENGINE', help='folder of a built engine, or the name of a shipped one')
    parser.add_argument('--seconds', type=float, default=3.0, help='how long to listen to the cameras (default: %(default)s)')
    parser.add_argument('--json', action='store_true', help='print the findings as one JSON object')
    add_network_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from penguin_ros.doctor.finding import FAULT, OK, UNSEEN, WARNING
    from penguin_ros.doctor.surroundings import Surroundings

    findings = []
    for finding in examine(Surroundings(), args):
        findings.append(finding)
        if not args.json:
            print(_line(finding), flush=True)
    counts = {level: sum(finding.level == level for finding in findings) for level in (OK, WARNING, FAULT, UNSEEN)}
    if args.json:
        print(json.dumps({'findings': [asdict(finding) for finding in findings], 'counts': counts}, indent=1))
    else:
        print('\n' + ', '.join(f'{count} {level}' for level, count in counts.items()))
    return 1 if counts[FAULT] else 0


def examine(machine: Surroundings, args: argparse.Namespace) -> Iterator[Finding]:
    """Everything, in the order in which it is best mended."""
    from penguin_ros.core.config import read_config
    from penguin_ros.core.errors import PenguinError
    from penguin_ros.dds.options import read_parameter_file
    from penguin_ros.doctor.device import look_at_device, look_at_network
    from penguin_ros.doctor.engine import look_at_engine, manifest_of
    from penguin_ros.doctor.finding import fault
    from penguin_ros.doctor.packages import look_at_packages

    values: dict[str, Any] = {}
    config: PenguinConfig | None = None
    broken: list[Finding] = []
    try:
        from pathlib import Path

        values = read_parameter_file(Path(args.config)) if args.config else {}
        values |= {'engine': args.engine} if args.engine else {}
        config = read_config(values)
    except PenguinError as error:
        broken = [fault('configuration', str(error), f'edit {args.config}; penguin settings lists what can be set')]
    backend = _backend(config, manifest_of) if config else None
    yield from look_at_packages(machine, backend)
    yield from look_at_device(machine, backend)
    yield from look_at_network(machine)
    yield from broken
    if config is not None:
        yield from look_at_engine(machine, config)
        yield from _cameras(config, values, args)


def _backend(config: PenguinConfig, manifest_of: Any) -> str | None:
    """What is to run the engine, as far as that is known."""
    from penguin_ros.core.errors import PenguinError

    if config.backend != 'auto':
        return config.backend
    try:
        return manifest_of(config)[1].backend
    except PenguinError:
        return None


def _cameras(config: PenguinConfig, values: dict[str, Any], args: argparse.Namespace) -> Iterator[Finding]:
    from penguin_ros.core.config import read_camera
    from penguin_ros.core.errors import PenguinError
    from penguin_ros.doctor.cameras import Heard, look_at_cameras, not_listened

    if not args.config:
        yield not_listened('no configuration names any; give --config FILE')
        return
    cameras = [read_camera(name, values) for name in config.cameras]
    heard: Sequence[Heard] = []
    try:
        if importlib.util.find_spec('rclpy') is not None:
            from penguin_ros.ros.hearing import hear as hear_on_ros
            heard = hear_on_ros(cameras, args.seconds)
        else:
            from penguin_ros.dds.hearing import hear as hear_on_dds
            heard = hear_on_dds(cameras, args.seconds, domain_id=args.domain, interface=args.interface)
    except (PenguinError, ImportError) as error:
        yield not_listened(f'neither ROS 2 nor Cyclone DDS can be used here: {error}')
        return
    yield from look_at_cameras(heard, max_image_pixels=config.max_image_pixels)


def _line(finding: Finding) -> str:
    text = f'{finding.level:14} {finding.about:20} {finding.text}'
    return f'{text}\n{"":35} mend: {finding.remedy}' if finding.remedy else text
