"""Looks without a node around them: what is given up for a deadline, and what a caption cost."""

import logging
import time

import cv2
import numpy as np
import pytest

from penguin_ros.core.confidence import ConfidenceScale, LogOddsScale
from penguin_ros.core.config import CameraConfig, read_config
from penguin_ros.core.dialect import Dialect
from penguin_ros.core.frame import Frame
from penguin_ros.core.health import CameraHealth, Health
from penguin_ros.core.perception import Engines, Perception
from penguin_ros.core.scene import Answer, Question, Scene, Status
from penguin_ros.core.worker import Inquiry
from tests.core.numpy_engine import NumpyLanguage, NumpyVision, byte_words

SETTINGS = {'token_budget.window_tokens': 160, 'window.frames': 4, 'caption.max_new_tokens': 24,
            'ask.max_new_tokens': 12, 'ask.max_prompt_tokens': 96, 'ask.detail_tokens': 64}


def perception(confidence: ConfidenceScale | None = None, **settings) -> Perception:
    engines = Engines(vision=NumpyVision(), language=NumpyLanguage(), words=byte_words(), dialect=Dialect(
        caption_instruction='Describe.'), model_name='tiny', engine_id='0123456789ab', cache_rows=800,
        confidence=confidence or ConfidenceScale())
    return Perception(engines, read_config({**SETTINGS, **settings}), [CameraConfig(name='camera')],
                      Health(cameras={'camera': CameraHealth()}), logging.getLogger('test'))


def look(watcher: Perception, seed: int, stamp_s: float) -> Scene:
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    pixels = cv2.resize(small, (224, 168), interpolation=cv2.INTER_NEAREST)
    return watcher.look(Frame(pixels, round(stamp_s * 1e9), 'lens', 'camera', time.monotonic()))


def test_what_is_given_up_for_a_deadline_is_said_in_scenes_and_figures() -> None:
    watcher = perception(**{'latency.target_ms': 0.1})
    assert watcher.figures()['ladder step'] == 'full'
    steps, scenes = [], []
    for number in range(40):
        scenes.append(look(watcher, number, 100.0 + number))
        steps.append(watcher.figures()['ladder step'])
    assert list(dict.fromkeys(steps)) == ['full', 'smaller budget', 'fewer captions', 'keyframes only']
    assert 'token budget' not in scenes[0].reason
    assert scenes[-1].status is Status.DEGRADED
    assert 'captions at keyframes only' in scenes[-1].reason
    assert scenes[-1].tokens.limit < scenes[0].tokens.limit


def test_a_scene_tells_how_many_engine_calls_its_caption_took() -> None:
    watcher = perception(**{'caption.refresh_s': 1.0})
    first, again = look(watcher, 1, 100.0), look(watcher, 1, 102.0)
    assert first.decode_passes == first.decode_tokens + 1 > 1
    assert not again.unchanged
    quiet = look(watcher, 1, 102.5)
    assert (quiet.unchanged, quiet.decode_passes) == (True, 0)


def test_confidences_are_given_on_the_scale_of_the_engine() -> None:
    scale = ConfidenceScale(caption=LogOddsScale(2.0, 1.0), answer=LogOddsScale(3.0, -1.0), choice_temperature=2.0)
    plain, scaled = perception(), perception(scale)
    captions = [look(watcher, 1, 100.0).confidence for watcher in (plain, scaled)]
    assert captions[1] == pytest.approx(scale.caption(captions[0])) != captions[0]
    answers = [ask(watcher, Question(text='What?')) for watcher in (plain, scaled)]
    assert answers[1].confidence == pytest.approx(scale.answer(answers[0].confidence))
    chosen = [ask(watcher, Question(text='Which?', choices=('a', 'b', 'c'))) for watcher in (plain, scaled)]
    assert chosen[1].probabilities == pytest.approx(tuple(scale.choices(np.array(chosen[0].probabilities))))
    assert chosen[1].confidence == max(chosen[1].probabilities)


def ask(watcher: Perception, question: Question) -> Answer:
    return watcher.answer(Inquiry(question=question, received_s=time.monotonic(), deadline_s=float('inf')))
