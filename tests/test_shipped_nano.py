"""The shipped model on the shipped recording: what its users see first."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from penguin_ros.core.config import CameraConfig, PenguinConfig
from penguin_ros.core.frame import Frame
from penguin_ros.core.health import CameraHealth, Health
from penguin_ros.core.perception import Engines, Perception
from penguin_ros.core.scene import Question
from penguin_ros.core.worker import Inquiry
from penguin_ros.training.evaluation import Interview
from penguin_ros.training.scores import mean_iou, score_caption
from penguin_ros.training.texts import CAPTION_INSTRUCTION, Thing, read_things

pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')
pytest.importorskip('rosbags', reason='rosbags is not installed: pip install "penguin_ros[dds]"')

from penguin_ros.assemble import load_engines
from penguin_ros.sim.recording import RecordedFrame, read_recording

RECORDING = Path(__file__).parent.parent / 'recordings' / 'warehouse.mcap'


@pytest.fixture(scope='module')
def engines() -> Engines:
    return load_engines(PenguinConfig(), logging.getLogger('test'))


@pytest.fixture(scope='module')
def frames() -> list[RecordedFrame]:
    return list(read_recording(RECORDING))


def _things(frame: RecordedFrame) -> list[Thing]:
    height_px, width_px = frame.pixels.shape[:2]
    sides = np.array([width_px, height_px, width_px, height_px])
    return [Thing(entry['kind'], entry['colour'], entry['digit'], tuple(np.asarray(entry['box']) / sides))
            for entry in frame.truth['objects']]


def test_boxes_lie_better_between_the_coordinate_tokens_than_on_them(engines: Engines, frames: list[RecordedFrame]) -> None:
    interview = Interview(engines)
    finer, written = [], []
    for frame in frames[::9]:
        interview.stream.clear()
        interview.show(frame.pixels, (6, 8), 1.0)
        text, decoded = interview.ask(CAPTION_INSTRUCTION)
        finer.append(score_caption(read_things(text), _things(frame)))
        written.append(score_caption(read_things(engines.words.text(decoded.ids)), _things(frame)))
    assert mean_iou(finer) > mean_iou(written) + 0.005


def test_an_answer_names_a_thing_by_the_track_that_the_caption_gave_it(engines: Engines, frames: list[RecordedFrame]) -> None:
    health = Health(cameras={'camera': CameraHealth()})
    watcher = Perception(engines, replace(PenguinConfig(), cameras=('camera',)), [CameraConfig(name='camera')], health,
                         logging.getLogger('test'))
    frame = frames[0]
    scene = watcher.look(Frame(np.asarray(frame.pixels), frame.stamp_ns, 'lens', 'camera', time.monotonic()))
    barrel = next(phrase for phrase in scene.phrases if phrase.text == 'a green barrel')
    now_s = time.monotonic()
    answer = watcher.answer(Inquiry(Question(text='Where is the green barrel?'), received_s=now_s, deadline_s=now_s + 30.0))
    assert [phrase.text for phrase in answer.phrases] == ['a green barrel']
    assert answer.phrases[0].track_id == barrel.track_id > 0
    other = watcher.answer(Inquiry(Question(text='Where is the red crate?'), received_s=now_s, deadline_s=now_s + 30.0))
    assert all(phrase.track_id == 0 for phrase in other.phrases)
