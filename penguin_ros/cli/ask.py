"""penguin ask: asks a running node a question and prints the answer. Knows nothing of how the question travels."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penguin_ros.core.frame import Region

_EXAMPLES = """examples:
  penguin ask "What is in front of the robot?"
  penguin ask "Is the way free?" --choice yes --choice no --json
  penguin ask "What is this?" --camera front --region 120,80,200,160 --stream
  penguin ask "How many crates are there?" --ago 5

The node may be `penguin run` or the ROS 2 node. Exit status 0 with an answer, 1 without.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`penguin ask`."""
    from penguin_ros.dds.options import add_network_options

    parser = subparsers.add_parser(
        'ask', help='ask a running node about what a camera sees',
        description='Asks by service, by action (--stream), or by topics where services do not cross.',
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('question', help='the question, in words the model knows')
    parser.add_argument('--camera', default='', metavar='NAME', help='which camera (default: the first)')
    parser.add_argument('--region', type=_region, metavar='X,Y,W,H',
                        help='what the question is about, in pixels of the original image (default: the whole image)')
    parser.add_argument('--choice', action='append', default=[], dest='choices', metavar='TEXT',
                        help='one possible answer; give all of them to get a probability for each')
    when = parser.add_mutually_exclusive_group()
    when.add_argument('--stamp', type=_nanoseconds, default=0, metavar='SECONDS',
                      help='ask about the image of this moment, seconds since 1970')
    when.add_argument('--ago', type=_nanoseconds, default=0, metavar='SECONDS', help='ask about what was seen so long ago')
    parser.add_argument('--timeout', type=_seconds, default=10.0, metavar='SECONDS',
                        help='how long the answer may take (default: %(default)s)')
    parser.add_argument('--stream', action='store_true', help='print the answer while it is written')
    parser.add_argument('--json', action='store_true', help='print one JSON object with all fields')
    parser.add_argument('--node', default='/penguin', metavar='NAME', help='full name of the node (default: %(default)s)')
    add_network_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, and print the answer."""
    import os
    import time

    from penguin_ros.core.errors import QuestionError
    from penguin_ros.core.scene import Question
    from penguin_ros.dds.asking import Asker
    from penguin_ros.dds.bus import DdsBus

    question = Question(text=args.question, camera=args.camera, region=args.region, choices=tuple(args.choices),
                        stamp_ns=time.time_ns() - args.ago if args.ago else args.stamp)
    bus = DdsBus(f'penguin_ask_{os.getpid()}', domain_id=args.domain, interface=args.interface)
    try:
        asker = Asker(bus, args.node)
        if args.stream:
            typed = _Typewriter(quiet=args.json)
            answer = asker.ask_streaming(question, args.timeout, typed)
            typed.finish(answer.answer)
        else:
            answer = asker.ask(question, args.timeout)
    finally:
        bus.close()
    if args.json:
        print(json.dumps(_as_dict(answer), ensure_ascii=False))
    elif answer.success:
        _print_answer(answer, args.choices, whole=not args.stream)
    if not answer.success:
        raise QuestionError(answer.message)
    return 0


class _Typewriter:
    """Prints a growing text; where the text so far is changed after all, it begins a new line."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._shown = quiet, ''

    def __call__(self, text: str) -> None:
        if self._quiet or text == self._shown:
            return
        if not text.startswith(self._shown):
            print()
            self._shown = ''
        print(text[len(self._shown):], end='', flush=True)
        self._shown = text

    def finish(self, text: str) -> None:
        self(text)
        if self._shown:
            print()


def _print_answer(answer: Any, choices: list[str], *, whole: bool) -> None:
    if whole:
        print(answer.answer)
    for text, probability in zip(choices, answer.probabilities):
        print(f'  {probability:5.1%}  {text}')
    for phrase in answer.phrases:
        if phrase.has_box:
            box = f'x {phrase.x_min:.0f} to {phrase.x_max:.0f}, y {phrase.y_min:.0f} to {phrase.y_max:.0f} px'
            print(f'  {phrase.text}: {box} ({phrase.confidence:.0%})')
    stamp_s = answer.header.stamp.sec + answer.header.stamp.nanosec / 1e9
    print(f'  image of {stamp_s:.3f} s, {answer.age_ms:.0f} ms old; confidence {answer.confidence:.0%}, '
          f'{answer.latency.total_ms:.0f} ms', file=sys.stderr)


def _as_dict(message: Any) -> Any:
    """A message as JSON can write it."""
    if hasattr(message, '__dataclass_fields__'):
        return {name: _as_dict(getattr(message, name)) for name in message.__dataclass_fields__ if not name.startswith('__')}
    if isinstance(message, list) or hasattr(message, 'tolist'):
        return [_as_dict(item) for item in (message if isinstance(message, list) else message.tolist())]
    return round(message, 6) if isinstance(message, float) else message


def _region(text: str) -> Region:
    from penguin_ros.core.frame import Region

    try:
        x, y, width, height = (int(part) for part in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not X,Y,W,H in whole pixels, like 120,80,200,160') from None
    if min(x, y) < 0 or min(width, height) <= 0:
        raise argparse.ArgumentTypeError(f'{text!r}: X and Y are 0 or more, W and H more than 0')
    return Region(x, y, x + width, y + height)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.0 < seconds <= 3600.0:
        raise argparse.ArgumentTypeError(f'{text} is not more than 0 and at most 3600')
    return seconds


def _nanoseconds(text: str) -> int:
    from decimal import Decimal, InvalidOperation

    try:
        nanoseconds = int(Decimal(text) * 1_000_000_000)    # a float would lose the last digits of a time since 1970
    except (InvalidOperation, ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of seconds') from None
    if nanoseconds < 0:
        raise argparse.ArgumentTypeError(f'{text} is before 1970')
    return nanoseconds
