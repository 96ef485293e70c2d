"""`penguin demo`: a recorded camera, the node in a second process, two questions, and a score."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_EXAMPLES = """examples:
  penguin demo                                 the shipped recording and the nano model
  penguin demo --view                          with a live view (pip install 'penguin_ros[view]')
  penguin demo --recording my.mcap --out out/my   a recording made by `penguin sim record`
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        'demo', help='show everything working on a recorded camera', epilog=_EXAMPLES,
        description='Plays a recording as a camera on the loopback interface, runs the node in a second process, prints its '
                    'captions as they come, asks two questions about regions, and judges all of it against the truth.',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('out/demo'), help='folder for summary.json and contact_sheet.png')
    parser.add_argument('--recording', type=Path, help='a recording with ground truth; the shipped one where not given')
    parser.add_argument('--engine', default='nano', help='folder of a built engine, or the name of a shipped one')
    parser.add_argument('--seconds', type=float, default=float('inf'), help='play only this much of the recording')
    parser.add_argument('--view', action='store_true', help='open the live view')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run it and print the summary."""
    from penguin_ros.demonstration import Demonstration
    from penguin_ros.shipped import shipped

    recording = args.recording or shipped('recordings/warehouse.mcap')
    summary = Demonstration(recording, args.out, args.engine, lambda line: print(line, flush=True), args.view,
                            args.seconds).run()
    print(f"""
{summary.frames} images played, {summary.scenes} looked at: {summary.captions} captions, {summary.unchanged} unchanged, \
{summary.keyframes} keyframes
visual tokens   {summary.tokens_used_most} held at most, {summary.tokens_limit} allowed; {summary.tokens_encoded} encoded in all
age of results  median {summary.age_median_ms:.0f} ms, 99th percentile {summary.age_p99_ms:.0f} ms
against truth   F1 {summary.f1:.3f} (kind and colour), mean IoU {summary.mean_iou:.3f} of matched boxes
questions       {sum(answer['success'] for answer in summary.answers)} of {len(summary.answers)} answered
written         {args.out / 'summary.json'}, {args.out / 'contact_sheet.png'}""")
    return 0
