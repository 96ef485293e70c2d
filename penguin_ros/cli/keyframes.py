"""`penguin keyframes`: run the keyframe detector on recorded sequences. Knows nothing of their labels."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from penguin_ros.core.keyframe import KeyframeDecision


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        'keyframes', help='show which frames of recorded sequences become keyframes, and why',
        description='Run the keyframe detector on a folder of sequences: cases.json with a record {name, file, fps} for each,\n'
                    'and one .npz a sequence with its encoded pictures (arrays encoded, start, end).',
        epilog='examples:\n'
               '  penguin keyframes tests/data/golden_streaming            keyframes with their reasons\n'
               '  penguin keyframes tests/data/golden_streaming --json     {"name": [indices], ...}\n'
               '  penguin keyframes tests/data/golden_streaming --mode published',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, metavar='FOLDER', help='folder with cases.json')
    parser.add_argument('--mode', choices=('streaming', 'published'), default='streaming',
                        help="streaming (default) or the model authors' published rule")
    parser.add_argument('--json', action='store_true', help='print {name: [keyframe indices]} as JSON')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Detect and print; exit status 0."""
    found: dict[str, list[int]] = {}
    for case in read_cases(args.folder):
        decisions = detect(args.folder / case['file'], float(case['fps']), args.mode)
        found[case['name']] = [index for index, decision in enumerate(decisions) if decision.keyframe]
        if not args.json:
            print(f'{case["name"]}: {len(found[case["name"]])} of {len(decisions)} frames')
            for index in found[case['name']]:
                print(f'  {index:5d}  {index / float(case["fps"]):8.2f} s  {decisions[index].reason}')
    if args.json:
        print(json.dumps(found))
    return 0


def read_cases(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder's cases.json. Raises RecordingError where it is missing or not laid out as expected."""
    from penguin_ros.core.errors import RecordingError

    try:
        cases = json.loads((folder / 'cases.json').read_text())['cases']
        wanting = next((case for case in cases if not {'name', 'file', 'fps'} <= set(case)), None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordingError(f'{folder / "cases.json"} cannot be read ({error!r}). Name a folder laid out like '
                             'tests/data/golden_streaming.') from error
    if wanting is not None:
        raise RecordingError(f'a record of {folder / "cases.json"} has {sorted(wanting)}; it needs name, file and fps.')
    return cases


def detect(path: Path, fps: float, mode: str) -> list[KeyframeDecision]:
    """One decision per frame of a sequence, from a detector that starts anew."""
    from penguin_ros.core.keyframe import KeyframeSettings, keyframe_detector

    detector = keyframe_detector(KeyframeSettings(mode=mode))
    return [detector.offer(rgb, int(index / fps * 1e9)) for index, rgb in enumerate(read_frames(path))]


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of one sequence, RGB uint8 [H, W, 3]. Raises RecordingError where the file is cut off or holds no pictures."""
    import zipfile

    import cv2
    import numpy as np

    from penguin_ros.core.errors import RecordingError

    try:
        with np.load(path) as stored:
            encoded, start, end = stored['encoded'], stored['start'], stored['end']
        for index, (first, last) in enumerate(zip(start, end)):
            picture = cv2.imdecode(encoded[first:last], cv2.IMREAD_COLOR)
            if picture is None:
                raise ValueError(f'picture {index} cannot be decoded')
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, cv2.error) as error:
        raise RecordingError(f'{path} cannot be read ({error}). It may be cut off; copy it again.') from error
