"""Scores of an engine: right answers score 1, wrong ones 0, and the same engine always gets the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from penguin_ros.backends.torch import load_torch_engines
from penguin_ros.core.decode import Decoded
from penguin_ros.core.dialect import read_dialect
from penguin_ros.core.perception import Engines
from penguin_ros.core.words import read_words
from penguin_ros.training import evaluation
from penguin_ros.training.dataset import open_split
from penguin_ros.training.evaluation import Scenes, choose_scenes, evaluate, older_grid
from penguin_ros.training.nano import write_model
from penguin_ros.training.network import Network, NetworkShape, TowerShape
from penguin_ros.training.questions import Turn
from penguin_ros.training.rows import Words
from penguin_ros.training.score_report import score_table
from penguin_ros.training.texts import CAPTION_INSTRUCTION, caption
from penguin_ros.training.tokenizer import build_tokenizer
from tests.training.drawn import draw_split


@pytest.fixture(scope='module')
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    folder = tmp_path_factory.mktemp('model')
    words = Words(build_tokenizer())
    torch.manual_seed(0)
    tower = TowerShape(width=32, layers=1, heads=2, kv_heads=1, head_dim=16, ffn=48)
    write_model(folder, Network(NetworkShape(vocabulary=words.tokenizer.get_vocab_size(), image_token_id=words.image_id,
                                             encoder=tower, decoder=tower)), words)
    vision, language = load_torch_engines(folder)
    return Engines(vision=vision, language=language, words=read_words(folder), dialect=read_dialect(folder),
                   model_name='untrained', engine_id='0' * 12, cache_rows=600)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """Six pictures and three clips of three frames."""
    folder = tmp_path_factory.mktemp('scenes')
    draw_split(folder / 'pictures', 6, seed=1)
    draw_split(folder / 'clips', 4, seed=9, frames=3)
    return choose_scenes(open_split(folder / 'pictures'), open_split(folder / 'clips'), scenes=6, clips=3)


def test_an_untrained_engine_gets_through_and_scores_next_to_nothing(
        engines: Engines, scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, 'MAX_NEW_TOKENS', 8)
    result = evaluate(engines, scenes)
    assert (result['pictures'], result['clips']) == (6, 3)
    assert result['clip_tokens_mean'] == 6 * 8 + 2 * 5 * 7
    assert result['scores']['f1']['value'] < 0.3
    assert result['scores'] == evaluate(engines, scenes)['scores']
    assert '| kind+colour set F1 | 0.' in score_table(result)


def test_right_answers_score_one_and_wrong_ones_zero(
        engines: Engines, scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    for right in (True, False):
        result = _result(engines, scenes, monkeypatch, right)
        assert {'f1', 'video_f1', 'region', 'where_iou', 'count', 'time', 'change', 'passed'} <= set(result['scores'])
        for name, score in result['scores'].items():
            # Coordinates are bin centres, so even the true caption's boxes are a little off.
            expected = pytest.approx(1.0, abs=0.1) if right else 0.0
            assert score['value'] == expected, name
        for kind in ('phrase', 'answer', 'caption', 'choice'):
            assert result['reliability'][kind]['right'] == (1.0 if right else 0.0), kind


def test_every_time_skill_counts_into_one_figure(engines: Engines, scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = _result(engines, scenes, monkeypatch, True)['scores']
    assert scores['time']['count'] == sum(scores[skill]['count'] for skill in ('change', 'when', 'order', 'passed')
                                          if skill in scores)


def test_older_frames_are_a_little_coarser() -> None:
    assert older_grid((6, 8)) == (5, 7)
    assert older_grid((2, 2)) == (2, 2)


def _result(engines: Engines, scenes: Scenes, monkeypatch: pytest.MonkeyPatch, right: bool) -> dict[str, Any]:
    """The result of something that knows every answer, or that knows none."""
    truth: dict[str, str] = {}
    frames = [(split, frame) for split, clip in (*scenes.pictures, *scenes.clips) for frame in clip.frames]

    def knows(self: Any, picture: np.ndarray, token_grid: tuple[int, int], stamp_s: float) -> None:
        del self, token_grid, stamp_s
        frame = next(frame for split, frame in frames if np.array_equal(split.image(frame), picture))
        truth[CAPTION_INSTRUCTION] = caption(evaluation.things_of(evaluation.View((frame,), (0.0,), 168)))

    def noted(turn: Turn | None) -> Turn | None:
        if turn:
            truth[turn.question] = turn.answer
        return turn

    def answers(self: Any, question: str) -> tuple[str, Decoded]:
        text = truth[question] if right else 'a white barrel<box><5><5><15><15></box>'
        ids = [int(token) for token in engines.words.ids(text)]
        return text, Decoded(ids, [0.9] * len(ids))

    def chooses(self: Any, question: str, choices: Sequence[str]) -> np.ndarray:
        found = np.array([0.9 if choice == truth[question] else 0.1 for choice in choices])
        return (found if right else 1 - found) / (found if right else 1 - found).sum()

    sample = evaluation.sample_time_questions
    monkeypatch.setattr(evaluation.Interview, 'show', knows)
    monkeypatch.setattr(evaluation.Interview, 'ask', answers)
    monkeypatch.setattr(evaluation.Interview, 'choose', chooses)
    monkeypatch.setattr(evaluation, 'ASKERS', tuple(
        lambda rng, view, ask=ask: noted(ask(rng, view)) for ask in evaluation.ASKERS))
    monkeypatch.setattr(evaluation, 'sample_time_questions', lambda rng, view, count: [
        turn for turn in sample(rng, view, count) if noted(turn)])
    result = evaluate(engines, scenes)
    monkeypatch.undo()
    return result
