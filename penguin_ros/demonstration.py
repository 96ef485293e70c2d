"""Everything working at once, on one machine: a recorded camera, the node in a second process, questions, and the score.

Plays the shipped recording on DDS over the loopback interface and judges what the node says against the recording's truth.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from penguin_ros.core.drawing import draw_scene
from penguin_ros.core.errors import EngineError, TransportError
from penguin_ros.core.frame import Region
from penguin_ros.core.scene import GroundedPhrase, Scene, Status, TokenUse
from penguin_ros.dds.bus import DdsBus
from penguin_ros.dds.player import Played, Player
from penguin_ros.dds.recording import Recording
from penguin_ros.sim.recording import COMPRESSED_TOPIC, RecordedFrame, read_recording
from penguin_ros.training.scores import CaptionScore, mean_iou, score_caption, set_f1
from penguin_ros.training.texts import Thing, read_things
from penguin_ros.viewer import Viewer

CAMERA = 'camera'
START_S = 30.0              # how long the node may take until it listens
LAST_SCENE_S = 3.0          # how long to wait for the last scenes once the recording has ended
QUESTIONS_AT = (0.35, 0.7)  # when to ask, as shares of the recording
SHEET_TILES = 9


@dataclass
class Summary:
    """What the demonstration measured; `summary.json` has these fields."""

    frames: int = 0                     # images played
    scenes: int = 0
    captions: int = 0
    unchanged: int = 0
    keyframes: int = 0
    tokens_limit: int = 0
    tokens_used_most: int = 0           # held at any moment
    tokens_encoded: int = 0             # in all
    age_median_ms: float = 0.0
    age_p99_ms: float = 0.0
    f1: float = 0.0                     # kind and colour, of captions against the truth of their own frame
    mean_iou: float = 0.0               # of matched boxes
    f1_all_scenes: float = 0.0          # the same over every scene, unchanged ones with the caption that holds
    answers: list[dict[str, Any]] = field(default_factory=list)
    engine: str = ''
    seconds: float = 0.0


@dataclass
class Demonstration:
    """One run. ``tell`` prints a line for people."""

    recording: Path
    out: Path
    engine: str
    tell: Callable[[str], None]
    view: bool = False
    seconds: float = float('inf')       # how much of the recording is played
    _frames: dict[int, RecordedFrame] = field(default_factory=dict)     # by recorded stamp
    _played: dict[int, int] = field(default_factory=dict)               # stamp as sent -> as recorded
    _scenes: list[Any] = field(default_factory=list)
    _repeats: int = 0
    _started_s: float = 0.0
    _viewer: Viewer | None = None

    def run(self) -> Summary:
        """Play, listen, ask, judge. Raises PenguinError when a part does not work."""
        frames = list(read_recording(self.recording))
        self._frames = {frame.stamp_ns: frame for frame in frames
                        if frame.stamp_ns - frames[0].stamp_ns <= self.seconds * 1e9}
        self.out.mkdir(parents=True, exist_ok=True)
        self._viewer = Viewer() if self.view else None
        domain_id = 60 + os.getpid() % 40       # beside whatever else this machine runs
        bus = DdsBus('demo', domain_id=domain_id)
        try:
            with Recording(self.recording) as recording, (self.out / 'node.log').open('w') as log:
                node = subprocess.Popen(
                    [sys.executable, '-m', 'penguin_ros', 'run', '--engine', self.engine, '--domain', str(domain_id),
                     '--camera', f'{CAMERA}={COMPRESSED_TOPIC}'], stdout=log, stderr=subprocess.STDOUT)
                try:
                    summary = self._watch(bus, recording, node)
                finally:
                    _end(node)
        finally:
            bus.close()
        self._write(summary)
        return summary

    def _watch(self, bus: DdsBus, recording: Recording, node: subprocess.Popen[bytes]) -> Summary:
        bus.listen(f'/penguin/{CAMERA}/scene', 'penguin_ros/msg/SceneDescription', self._on_scene)
        player = Player(recording, bus, [COMPRESSED_TOPIC], on_image=self._on_image)
        self.tell(f'starting the node with engine {self.engine} in a second process (its log: {self.out / "node.log"})')
        self._wait_for(node, player)
        seconds = (max(self._frames) - min(self._frames)) / 1e9
        self.tell(f'playing {self.recording.name}: {len(self._frames)} images, {seconds:.0f} s, a robot in a warehouse\n')
        self._started_s = time.monotonic()
        asking = threading.Thread(target=self._ask_along, args=(bus, seconds), daemon=True)
        self._answers: list[dict[str, Any]] = []
        asking.start()
        stop = threading.Event()
        timer = threading.Timer(seconds + 0.1, stop.set)
        timer.start()
        sent = player.play(stop)
        timer.cancel()
        asking.join(15.0)
        time.sleep(LAST_SCENE_S / 3)
        self._tell_repeats()
        return self._judge(sent)

    def _wait_for(self, node: subprocess.Popen[bytes], player: Player) -> None:
        give_up_s = time.monotonic() + START_S
        while not player.wait_for_watchers(0.2):
            if node.poll() is not None or time.monotonic() > give_up_s:
                said = (self.out / 'node.log').read_text(errors='replace').strip().splitlines()[-5:]
                raise EngineError('the node did not start. Its last words: ' + (' / '.join(said) or 'none')
                                  + f'. The whole log is {self.out / "node.log"}.')

    # -- while it runs -------------------------------------------------------------------------------------------

    def _on_image(self, played: Played) -> None:
        self._played[played.stamp_ns] = played.recorded_stamp_ns
        if self._viewer is not None and played.recorded_stamp_ns in self._frames:
            self._viewer.show_image(CAMERA, self._frames[played.recorded_stamp_ns].pixels, played.stamp_ns)

    def _on_scene(self, scene: Any) -> None:
        self._scenes.append(scene)
        if self._viewer is not None:
            self._viewer.show_scene(scene)
        if not _is_captioned(scene) and scene.status != Status.STALE:
            self._repeats += scene.unchanged
            return
        self._tell_repeats()
        mark = 'key' if scene.keyframe else '   '
        self.tell(f'{time.monotonic() - self._started_s:5.1f} s {mark} {scene.caption or scene.reason}  '
                  f'[{scene.confidence:.2f}, {scene.tokens.encoded} tokens, {scene.latency.total_ms:.0f} ms]')

    def _tell_repeats(self) -> None:
        if self._repeats:
            self.tell(f'              unchanged x{self._repeats}')
            self._repeats = 0

    def _ask_along(self, bus: DdsBus, seconds: float) -> None:
        client = bus.client('/penguin/describe_region', 'penguin_ros/srv/DescribeRegion')
        for share in QUESTIONS_AT:
            time.sleep(max(0.0, self._started_s + share * seconds - time.monotonic()))
            scene = next((scene for scene in reversed(self._scenes) if any(p.has_box for p in scene.phrases)), None)
            if scene is None:
                continue
            phrase = max((p for p in scene.phrases if p.has_box), key=lambda p: p.confidence)
            roi = {'x_offset': int(phrase.x_min), 'y_offset': int(phrase.y_min),
                   'width': int(phrase.x_max - phrase.x_min), 'height': int(phrase.y_max - phrase.y_min)}
            asked_s = time.monotonic()
            request = bus.new('penguin_ros/srv/DescribeRegion_Request', camera=CAMERA, stamp=scene.header.stamp,
                              region=bus.new('sensor_msgs/msg/RegionOfInterest', **roi), timeout=5.0)
            try:
                response = client.call(request, 6.0)
            except TransportError as error:
                response = bus.new('penguin_ros/srv/DescribeRegion_Response', success=False, message=str(error))
            took_ms = (time.monotonic() - asked_s) * 1e3
            words = f'what is in the {roi["width"]}x{roi["height"]} px at ({roi["x_offset"]}, {roi["y_offset"]})?'
            answer = response.description if response.success else f'error: {response.message}'
            self._answers.append({'question': words, 'answer': answer, 'success': bool(response.success),
                                  'confidence': round(float(response.confidence), 3), 'took_ms': round(took_ms, 1)})
            self.tell(f'\n        ? {words}\n        ! {answer}  [{response.confidence:.2f}, {took_ms:.0f} ms]\n')
            if self._viewer is not None:
                self._viewer.show_answer(words, answer)

    # -- afterwards ----------------------------------------------------------------------------------------------

    def _truth_of(self, scene: Any) -> RecordedFrame | None:
        stamp_ns = scene.header.stamp.sec * 1_000_000_000 + scene.header.stamp.nanosec
        return self._frames.get(self._played.get(stamp_ns, 0))

    def _judge(self, sent: int) -> Summary:
        scenes = [scene for scene in self._scenes if scene.status != Status.STALE and self._truth_of(scene) is not None]
        if not scenes:
            raise EngineError(f'the node published no scene. Its log is {self.out / "node.log"}.')
        captioned = [scene for scene in scenes if _is_captioned(scene)]
        ages_ms = np.array([scene.age_ms for scene in scenes])
        scores = [self._score(scene) for scene in captioned]
        return Summary(
            frames=sent, scenes=len(scenes), captions=len(captioned), unchanged=sum(bool(s.unchanged) for s in scenes),
            keyframes=sum(bool(scene.keyframe) for scene in scenes), tokens_limit=max(s.tokens.limit for s in scenes),
            tokens_used_most=max(s.tokens.used for s in scenes), tokens_encoded=sum(s.tokens.encoded for s in scenes),
            age_median_ms=round(float(np.median(ages_ms)), 1), age_p99_ms=round(float(np.percentile(ages_ms, 99)), 1),
            f1=round(set_f1(scores), 4), mean_iou=round(mean_iou(scores), 4),
            f1_all_scenes=round(set_f1([self._score(scene) for scene in scenes]), 4), answers=self._answers,
            engine=f'{scenes[0].model} {scenes[0].engine}', seconds=round(time.monotonic() - self._started_s, 1))

    def _score(self, scene: Any) -> CaptionScore:
        frame = self._truth_of(scene)
        assert frame is not None
        height, width = frame.pixels.shape[:2]
        return score_caption([thing for phrase in scene.phrases for thing in _things_of(phrase, height, width)],
                             [_thing_of(entry, height, width) for entry in frame.truth['objects']])

    def _write(self, summary: Summary) -> None:
        (self.out / 'summary.json').write_text(json.dumps(asdict(summary), indent=1) + '\n')
        captioned = [scene for scene in self._scenes if _is_captioned(scene) and self._truth_of(scene) is not None]
        chosen = [captioned[index] for index in np.unique(np.linspace(0, len(captioned) - 1, SHEET_TILES).round().astype(int))]
        tiles = []
        for scene in chosen:
            frame = self._truth_of(scene)
            assert frame is not None
            tiles.append(_tile(frame.pixels, scene))
        cv2.imwrite(str(self.out / 'contact_sheet.png'), cv2.cvtColor(_sheet(tiles), cv2.COLOR_RGB2BGR))
        if self._viewer is not None:
            self._viewer.close()


def _is_captioned(scene: Any) -> bool:
    """Whether the caption was written for this very frame."""
    return bool(scene.caption_stamp == scene.header.stamp and scene.status != Status.STALE)


def _end(node: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C would; by force only where that does not work."""
    if node.poll() is None:
        node.send_signal(signal.SIGINT)
        try:
            node.wait(10.0)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()


def _things_of(phrase: Any, height_px: int, width_px: int) -> list[Thing]:
    """What a published phrase names, with its box as fractions of the image."""
    box = None
    if phrase.has_box:
        box = (phrase.x_min / width_px, phrase.y_min / height_px, phrase.x_max / width_px, phrase.y_max / height_px)
    return [Thing(thing.kind, thing.colour, thing.digit, box) for thing in read_things(phrase.text)]


def _thing_of(entry: Mapping[str, Any], height_px: int, width_px: int) -> Thing:
    x_min, y_min, x_max, y_max = entry['box']
    return Thing(entry['kind'], entry['colour'], entry['digit'],
                 (x_min / width_px, y_min / height_px, x_max / width_px, y_max / height_px))


def _scene_from_msg(message: Any) -> Scene:
    """As much of a SceneDescription as a drawing needs."""
    phrases = tuple(GroundedPhrase(p.text, p.begin, p.end, Region(p.x_min, p.y_min, p.x_max, p.y_max) if p.has_box else None,
                                   p.confidence, p.track_id) for p in message.phrases)
    return Scene(camera=message.camera, stamp_ns=0, frame_id=message.header.frame_id, height_px=0, width_px=0,
                 caption=message.caption, phrases=phrases, keyframe=bool(message.keyframe), unchanged=bool(message.unchanged),
                 confidence=message.confidence, status=Status(message.status),
                 tokens=TokenUse(limit=message.tokens.limit, used=message.tokens.used))


def _tile(rgb: np.ndarray, message: Any, width_px: int = 480) -> np.ndarray:
    """The image with its boxes, and the caption below in as many lines as it takes."""
    scale = width_px / rgb.shape[1]
    large = cv2.resize(np.ascontiguousarray(rgb), (width_px, round(rgb.shape[0] * scale)), interpolation=cv2.INTER_CUBIC)
    scene = _scene_from_msg(message)
    grown = [GroundedPhrase(p.text, p.begin, p.end, Region(*(edge * scale for edge in (
        p.region.x_min, p.region.y_min, p.region.x_max, p.region.y_max))) if p.region else None, p.confidence, p.track_id)
        for p in scene.phrases]
    picture = draw_scene(large, Scene(**{**vars(scene), 'phrases': tuple(grown)}))
    strip = np.full((58, width_px, 3), 255, dtype=np.uint8)
    for number, line in enumerate(_wrapped(scene.caption, 58)[:3]):
        cv2.putText(strip, line, (6, 17 + 17 * number), cv2.FONT_HERSHEY_SIMPLEX, 0.44, (20, 20, 20), 1, cv2.LINE_AA)
    return np.vstack([picture, strip])


def _wrapped(text: str, letters: int) -> list[str]:
    lines = ['']
    for word in text.split():
        if len(lines[-1]) + len(word) >= letters:
            lines.append('')
        lines[-1] += (' ' if lines[-1] else '') + word
    return lines


def _sheet(tiles: Sequence[np.ndarray], columns: int = 3, gap_px: int = 6) -> np.ndarray:
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (height + gap_px) + gap_px, columns * (width + gap_px) + gap_px, 3), 255, dtype=np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (number // columns) * (height + gap_px) + gap_px, (number % columns) * (width + gap_px) + gap_px
        sheet[top:top + height, left:left + width] = tile
    return sheet
