"""Command-line options that commands without ROS 2 share, and parameter files. Imports nothing heavy; knows no command."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from penguin_ros.core.errors import ConfigError
from penguin_ros.dds.names import camera_name

LOG_FORMAT = '[%(levelname)s] [%(created).3f] [%(name)s]: %(message)s'      # as rclpy's console output


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """--domain and --interface."""
    network = parser.add_argument_group('network')
    network.add_argument('--domain', type=int, metavar='ID', help='DDS domain, 0 to 232 (default: ROS_DOMAIN_ID, else 0)')
    network.add_argument('--interface', default='lo', metavar='NAME',
                         help='network interface; lo stays on this machine (default: %(default)s)')


def add_node_options(parser: argparse.ArgumentParser) -> None:
    """What the node is configured with: --config, --engine, --set, --log-level."""
    parser.add_argument('--config', type=Path, metavar='FILE.yaml',
                        help='parameter file, as ROS 2 reads them (config/*.yaml)')
    parser.add_argument('--engine', metavar='ENGINE', help='folder of a built engine, or the name of a shipped one')
    parser.add_argument('--set', action='append', default=[], metavar='NAME=VALUE', dest='assignments',
                        help='one setting, for example token_budget.window_tokens=512; may be given again')
    parser.add_argument('--log-level', default='info', choices=('debug', 'info', 'warning', 'error'),
                        help='least severity that is shown (default: %(default)s)')


def node_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of --config, --engine and --set, the later ones first in force."""
    settings = read_parameter_file(args.config) if args.config else {}
    if args.engine:
        settings['engine'] = args.engine
    for assignment in args.assignments:
        name, equals, text = assignment.partition('=')
        if not equals or not name:
            raise ConfigError(f'--set {assignment} is not NAME=VALUE. Write it like --set annotated=false.')
        settings[name.strip()] = _yaml(text, f'--set {assignment}')
    return settings


def named_topics(options: Sequence[str]) -> dict[str, str]:
    """--camera NAME=TOPIC options as name -> topic; a topic alone is named after itself."""
    cameras: dict[str, str] = {}
    for option in options:
        name, equals, topic = option.partition('=')
        if not equals:
            name, topic = camera_name(option), option
        if not name or not topic:
            raise ConfigError(f'--camera {option} is not NAME=TOPIC. Write it like --camera front=/front/image_raw.')
        if name in cameras:
            raise ConfigError(f'--camera names {name} twice. Give each camera its own name.')
        cameras[name] = topic
    return cameras


def read_parameter_file(path: Path, node_name: str = 'penguin') -> dict[str, Any]:
    """A ROS 2 parameter file as dotted names: what it has for the node, or, where it names no nodes, the file itself."""
    try:
        document = _yaml(path.read_text('utf-8'), str(path))
    except OSError as error:
        raise ConfigError(f'{path} cannot be read: {error}. Give the path of a parameter file.') from error
    if not isinstance(document, Mapping):
        raise ConfigError(f'{path} holds {type(document).__name__}, not names with values. See config/ for how it looks.')
    nodes = dict(_nodes(document, ''))
    if not nodes:
        return _dotted(document, '')
    settings: dict[str, Any] = {}
    for name, parameters in nodes.items():
        if name.rpartition('/')[2] in (node_name, '*', '**'):
            settings |= _dotted(parameters or {}, '')
    if not settings:
        raise ConfigError(f'{path} has no parameters for {node_name}, only for {", ".join(nodes)}. Name the node or /**.')
    return settings


def log_to_console(level: str) -> None:
    logging.basicConfig(level=level.upper(), format=LOG_FORMAT)


def _nodes(tree: Mapping[str, Any], above: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each node of a parameter file, by full name, with its parameters; namespaces may be levels of their own."""
    for name, value in tree.items():
        if name == 'ros__parameters':
            yield above, value
        elif isinstance(value, Mapping):
            yield from _nodes(value, f'{above}/{str(name).strip("/")}')


def _dotted(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _dotted(value, f'{prefix}{name}.')
        else:
            flat[f'{prefix}{name}'] = value
    return flat


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f'{where} is not YAML: {error}') from error
