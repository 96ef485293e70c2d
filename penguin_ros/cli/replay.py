"""penguin replay: from recording to recording, as fast as the machine allows. Knows nothing of how images are looked at."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

_EXAMPLES = """examples:
  penguin replay drive.mcap drive_scenes.mcap
  penguin replay drive.mcap out.mcap --camera front=/front/image_raw --set keyframe.mode=reference --captions
  penguin replay drive.mcap out.mcap --json > summary.json

OUT holds ~/CAMERA/scene, ~/CAMERA/detections and /diagnostics on the recording's own time. Every image is looked at. A
recording that is cut off is used as far as it goes; the exit status is then 1.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`penguin replay`."""
    from penguin_ros.dds.options import add_node_options

    parser = subparsers.add_parser(
        'replay', help='run the node over a recording and record what it says',
        description='Looks at every image of a recording (.mcap or rosbag2 folder) and writes scenes, detections and keyframe '
                    'reasons to a new one. Needs neither ROS 2 nor DDS.',
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, metavar='IN', help='recording to read')
    parser.add_argument('target', type=Path, metavar='OUT.mcap', help='recording to write')
    parser.add_argument('--camera', action='append', default=[], metavar='NAME=TOPIC', dest='cameras',
                        help='a camera and its image topic; may be given again (default: every image topic)')
    add_node_options(parser)
    parser.add_argument('--annotated', action='store_true', help='also write images with the boxes drawn')
    parser.add_argument('--captions', action='store_true', help='print each caption as it is written')
    parser.add_argument('--force', action='store_true', help='write over OUT if it exists')
    parser.add_argument('--json', action='store_true', help='print the summary as one JSON object')
    parser.set_defaults(run=run, log_level='warning')


def run(args: argparse.Namespace) -> int:
    """Replay, and print what came of it."""
    from dataclasses import asdict

    from penguin_ros.assemble import assemble
    from penguin_ros.core.errors import RecordingError
    from penguin_ros.dds.options import log_to_console, named_topics, node_settings
    from penguin_ros.dds.replay import ReplaySummary, replay

    log_to_console(args.log_level)

    def on_scene(scene: Any) -> None:
        if args.captions and scene.caption_stamp == scene.header.stamp:
            stamp_s = scene.header.stamp.sec + scene.header.stamp.nanosec / 1e9
            reason = f' [{scene.keyframe_reason}]' if scene.keyframe else ''
            print(f'{stamp_s:.3f} {scene.camera}: {scene.caption}{reason}', file=sys.stderr if args.json else sys.stdout)

    def progress(summary: ReplaySummary, of: int) -> None:
        if sys.stderr.isatty():
            rate_hz = summary.images / summary.took_s if summary.took_s else 0.0
            print(f'\r{summary.images}/{of} images, {rate_hz:.1f} a second', end='', file=sys.stderr, flush=True)

    summary = replay(args.source, args.target, assemble, settings=node_settings(args), cameras=named_topics(args.cameras),
                     annotated=args.annotated, overwrite=args.force, progress=progress, on_scene=on_scene)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if args.json:
        print(json.dumps(asdict(summary), ensure_ascii=False))
    else:
        _print_summary(summary, args.target)
    if summary.damage:
        raise RecordingError(f'{summary.damage} {args.target} holds what could be read.')
    return 0


def _print_summary(summary: Any, target: Path) -> None:
    speed = summary.recorded_s / summary.took_s if summary.took_s else 0.0
    print(f'{summary.images} images of {", ".join(summary.cameras)}: {summary.captions} captions, '
          f'{summary.unchanged} unchanged, {summary.keyframes} keyframes, {summary.refused} refused\n'
          f'{summary.recorded_s:.1f} s of recording in {summary.took_s:.1f} s ({speed:.1f} times as fast); at most '
          f'{summary.tokens_used_most} of {summary.tokens_limit} tokens held\n{target}')
