"""Scores of an engine: right answers score 1, wrong ones 0, and the same engine always gets the same figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from penguin_ros.backends.torch import load_torch_engines
from penguin_ros.core.dialect import read_dialect
from penguin_ros.core.perception import Engines
from penguin_ros.core.words import read_words
from penguin_ros.training import evaluation
from penguin_ros.training.dataset import Split, open_split
from penguin_ros.training.evaluation import evaluate, markdown_table
from penguin_ros.training.nano import write_model
from penguin_ros.training.network import Network, NetworkShape, TowerShape
from penguin_ros.training.questions import Turn
from penguin_ros.training.rows import Words
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
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Six pictures and, between their seeds, two clips."""
    folder = tmp_path_factory.mktemp('scenes')
    draw_split(folder / 'pictures', 6, seed=1)
    draw_split(folder / 'clips', 2, seed=9, frames=3)
    pictures, clips = open_split(folder / 'pictures'), open_split(folder / 'clips')
    both = Split(folder, pictures.clips + clips.clips)
    both.image = lambda frame: (  # type: ignore[method-assign]
        clips if any(frame in clip.frames for clip in clips.clips) else pictures).image(frame)
    return both


def test_an_untrained_engine_gets_through_and_scores_next_to_nothing(
        engines: Engines, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, 'MAX_NEW_TOKENS', 8)
    result = evaluate(engines, split, scenes=6)
    assert (result['pictures'], result['clips']) == (6, 2)
    assert result['scores']['f1']['value'] < 0.3
    assert result['scores'] == evaluate(engines, split, scenes=6)['scores']
    assert '| kind+colour set F1 | 0.' in markdown_table(result)


def test_right_answers_score_one_and_wrong_ones_zero(
        engines: Engines, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    for right in (True, False):
        for name, value in _scores(engines, split, monkeypatch, right).items():
            # Coordinates are bin centres, so even the true caption's boxes are a little off.
            expected = pytest.approx(1.0, abs=0.1) if right else 0.0
            assert value == expected, name


def _scores(engines: Engines, split: Split, monkeypatch: pytest.MonkeyPatch, right: bool) -> dict[str, float]:
    """The scores of something that knows every answer, or that knows none."""
    asked: list[Turn] = []
    truth: dict[str, str] = {}

    def knows(self: Any, picture: np.ndarray, token_grid: tuple[int, int], stamp_s: float) -> None:
        del self, token_grid, stamp_s
        frame = next(frame for clip in split.clips for frame in clip.frames if np.array_equal(split.image(frame), picture))
        view = evaluation.View((frame,), (0.0,), 168)
        truth[CAPTION_INSTRUCTION] = caption(evaluation.things_of(view))

    def noted(ask: Any) -> Any:
        def asking(rng: Any, view: Any) -> Any:
            turn = ask(rng, view)
            if turn:
                asked.append(turn)
                truth[turn.question] = turn.answer
            return turn
        return asking

    def answers(self: Any, question: str) -> tuple[str, int]:
        return (truth[question], 5) if right else ('a white barrel', 5)

    monkeypatch.setattr(evaluation._Asker, 'show', knows)
    monkeypatch.setattr(evaluation._Asker, 'ask', answers)
    monkeypatch.setattr(evaluation, 'ASKERS', tuple(noted(ask) for ask in evaluation.ASKERS))
    monkeypatch.setattr(evaluation, 'change_turn', noted(evaluation.change_turn))
    result = evaluate(engines, split, scenes=6)
    monkeypatch.undo()
    assert asked
    return {name: score['value'] for name, score in result['scores'].items()}
