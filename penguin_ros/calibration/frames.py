"""Which frames of a recording or folder a calibration looks at, and why those; and how they are found again.

Knows nothing of models. A list of frames (frames.json) names its source and, frame by frame, the hash of what was recorded,
so that the same list gives the same calibration or an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from penguin_ros.backends.manifest import write_whole
from penguin_ros.core.encoding import MAX_PIXELS, rgb_from_compressed
from penguin_ros.core.errors import CalibrationError, ImageError
from penguin_ros.core.grid import fit_grid, native_grid

FRAMES_FILE, PROMPTS_FILE = 'frames.json', 'prompts.jsonl'
CAPTION = 'caption'             # the prompt that stands for the model's own caption instruction
PICTURES = ('.jpg', '.jpeg', '.png')
PICTURE_INTERVAL_NS = 500_000_000       # between the pictures of a folder, which have no stamps
FIRST_STAMP_NS = 1_000_000_000
MOST_LOOKED_AT = 3000           # frames of a recording that are compared; of more, every n-th
LEAST_DIFFERENCE = 1 / 255      # mean over a thumbnail; what is nearer to a frame already chosen is nothing but noise
_THUMBNAIL_PX = (16, 12)
_DETAIL_SHARES = (1.0, 0.5, 0.25)       # of the tokens a frame may have: keyframes, intermediate frames, old ones
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Frame:
    """One frame of a list."""

    name: str                   # file in the folder, or topic and time in the recording
    sha256: str                 # of the file, or of the recorded message
    width_px: int
    height_px: int
    stamp_ns: int
    grid: tuple[int, int]       # patches
    prompts: tuple[str, ...]    # by id, in prompts.jsonl
    reason: str


@dataclass(frozen=True)
class FrameList:
    """Frames in the order of their stamps, and where they are."""

    source: Path
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Picture:
    """One image of a source, not decoded yet."""

    name: str
    stamp_ns: int
    data: bytes
    decode: Callable[[], np.ndarray]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def pictures_of(source: Path) -> Iterator[Picture]:
    """Every image of an .mcap file, a rosbag2 folder or a folder of JPEG and PNG files, in order."""
    if _holds_files(source):
        for number, file in enumerate(_files_of(source)):
            data = file.read_bytes()
            yield Picture(file.name, FIRST_STAMP_NS + number * PICTURE_INTERVAL_NS, data, partial(rgb_from_compressed, data))
        return
    with _recording(source) as (recording, topics):
        for recorded in recording.messages(topics):
            yield Picture(f'{recorded.topic} {recorded.time_ns}', recorded.time_ns, recorded.data, partial(_decode, recorded))


def count_pictures(source: Path) -> int:
    """How many images a source has, without reading them."""
    if _holds_files(source):
        return len(_files_of(source))
    with _recording(source) as (recording, topics):
        return int(recording.count(topics))


def choose_frames(source: Path, count: int, *, max_tokens: int, patch_px: int, merge: int, prompts: Sequence[str],
                  progress: Progress = lambda line: None) -> FrameList:
    """The frames of a source that differ most from each other, each with the reason it was taken.

    First the extremes (darkest, brightest, flattest, sharpest, most blurred, most changed), then always the frame least like
    those chosen before; fewer than ``count`` when the rest look like those. The same source gives the same frames.
    """
    seen = list(_looked_at(source, progress))
    if not seen:
        raise CalibrationError(f'{source} holds no images. Give a recording with a camera, or a folder of JPEG or PNG files.')
    chosen = _choose(np.stack([one.thumbnail for one in seen]), np.array([one.sharpness for one in seen]), count)
    frames = []
    for number, place in enumerate(sorted(chosen)):
        one = seen[place]
        native = native_grid(one.height_px, one.width_px, patch_px=patch_px, merge=merge)
        share = _DETAIL_SHARES[number % len(_DETAIL_SHARES)]
        grid = fit_grid(native, max(1, round(share * min(max_tokens, native[0] * native[1] // merge**2))), merge=merge)
        asked = (CAPTION, *(() if len(prompts) < 2 else (prompts[1 + number % (len(prompts) - 1)],)))
        frames.append(Frame(one.name, one.sha256, one.width_px, one.height_px, one.stamp_ns, grid, asked, chosen[place]))
    return FrameList(source, tuple(frames))


def decoded_frames(listed: FrameList) -> Iterator[tuple[Frame, np.ndarray]]:
    """The listed frames and their pixels, in order. Raises CalibrationError for one that is missing or was changed."""
    wanted = {frame.name: frame for frame in listed.frames}
    for picture in pictures_of(listed.source):
        frame = wanted.pop(picture.name, None)
        if frame is None:
            continue
        if picture.sha256 != frame.sha256:
            raise CalibrationError(f'{picture.name} in {listed.source} is not the frame that the list describes. Use the '
                                   'recording the list was made of, or remove frames.json to have frames chosen anew.')
        yield frame, picture.decode()
    if wanted:
        raise CalibrationError(f'{listed.source} lacks {len(wanted)} of the listed frames, {next(iter(wanted))} among them. '
                               'Use the recording the list was made of, or remove frames.json to have frames chosen anew.')


def write_frames(folder: Path, listed: FrameList, prompts: dict[str, str]) -> None:
    """Write frames.json and prompts.jsonl; the source is named relative to the folder."""
    source = Path(os.path.relpath(listed.source, folder)).as_posix()
    lines = ',\n'.join(f'  {json.dumps(asdict(frame))}' for frame in listed.frames)     # a line each, to be read and compared
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / FRAMES_FILE, f'{{"source": {json.dumps(source)}, "frames": [\n{lines}\n]}}\n'.encode())
    asked = ''.join(json.dumps({'id': name, 'text': text}) + '\n' for name, text in prompts.items())
    write_whole(folder / PROMPTS_FILE, asked.encode())


def read_frames(file: Path) -> FrameList:
    """A list as ``write_frames`` writes it."""
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        frames = tuple(Frame(**{**entry, 'grid': tuple(entry['grid']), 'prompts': tuple(entry['prompts'])})
                       for entry in content['frames'])
        return FrameList(file.parent / content['source'], frames)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CalibrationError(f'{file} is no list of frames ({error!r}). Give --frames a recording or a folder of pictures; '
                               'the list is written then.') from error


def read_prompts(file: Path) -> dict[str, str]:
    """Texts by id; without the file only the caption is asked for. An empty text stands for the model's caption instruction."""
    if not file.exists():
        return {CAPTION: ''}
    try:
        entries = [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines() if line.strip()]
        return {CAPTION: '', **{str(entry['id']): str(entry['text']) for entry in entries}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CalibrationError(f'{file} cannot be read ({error!r}). Each of its lines is an object like '
                               '{"id": "count", "text": "How many people are there?"}.') from error


@dataclass(frozen=True)
class _Seen:
    """What is remembered of a frame that may be chosen."""

    name: str
    sha256: str
    stamp_ns: int
    width_px: int
    height_px: int
    thumbnail: np.ndarray       # float32, RGB, 0 to 1, flat
    sharpness: float


def _looked_at(source: Path, progress: Progress) -> Iterator[_Seen]:
    total = count_pictures(source)
    stride = max(1, -(-total // MOST_LOOKED_AT))
    for number, picture in enumerate(pictures_of(source)):
        if number % stride:
            continue
        try:
            pixels = picture.decode()
        except ImageError as error:     # one broken image among hundreds is no reason to give up
            progress(f'{picture.name} is left out: {error}')
            continue
        if number % 500 == 0:
            progress(f'{source}: {number} of {total} images looked at')
        small = cv2.resize(pixels, _THUMBNAIL_PX, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        sharpness = float(cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())
        height, width = pixels.shape[:2]
        yield _Seen(picture.name, picture.sha256, picture.stamp_ns, width, height, small.reshape(-1), sharpness)


def _choose(thumbnails: np.ndarray, sharpness: np.ndarray, count: int) -> dict[int, str]:
    """Places of the chosen frames, and why each was chosen."""
    light, contrast = thumbnails.mean(axis=1), thumbnails.std(axis=1)
    change = np.r_[0, np.abs(np.diff(thumbnails, axis=0)).mean(axis=1)]
    chosen: dict[int, str] = {}
    for value, reason in ((-light, 'darkest'), (light, 'brightest'), (-contrast, 'least contrast'), (contrast, 'most contrast'),
                          (-sharpness, 'most blurred'), (sharpness, 'sharpest'), (change, 'most changed since the one before')):
        if len(chosen) < count:
            chosen.setdefault(int(value.argmax()), reason)
    distance = np.min([np.abs(thumbnails - thumbnails[place]).mean(axis=1) for place in chosen], axis=0)
    while len(chosen) < min(count, len(thumbnails)):
        distance[list(chosen)] = -1
        place = int(distance.argmax())
        if distance[place] < LEAST_DIFFERENCE:
            break
        chosen[place] = f'least like those chosen before ({255 * distance[place]:.1f} of 255 grey levels from the nearest)'
        distance = np.minimum(distance, np.abs(thumbnails - thumbnails[place]).mean(axis=1))
    return chosen


def _holds_files(source: Path) -> bool:
    return source.is_dir() and not (source / 'metadata.yaml').exists()      # which a rosbag2 folder has


def _files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURES)


@contextmanager
def _recording(source: Path) -> Iterator[tuple[Any, list[str]]]:
    """An open recording and the topics of its cameras."""
    try:
        from penguin_ros.dds.recording import Recording
        from penguin_ros.dds.replay import cameras_of
    except ImportError as error:
        raise CalibrationError(f'{source} is read with rosbags, which is missing ({error}). Install it: '
                               'pip install "penguin_ros[dds]", or give a folder of JPEG files.') from error
    with Recording(source) as recording:
        yield recording, list(cameras_of(recording).values())


def _decode(recorded: Any) -> np.ndarray:
    from penguin_ros.dds.interfaces import rgb_from_msg, ros_types

    return rgb_from_msg(ros_types().decode(recorded.data, recorded.type_name), max_pixels=MAX_PIXELS)
