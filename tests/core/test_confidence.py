"""The scale of confidences: monotone, between 0 and 1, read from beside the engine, and in force in what is published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penguin_ros.core.confidence import (
    CONFIDENCE_FILE,
    ConfidenceScale,
    LogOddsScale,
    confidence_text,
    read_confidence,
)
from penguin_ros.core.errors import ConfigError
from penguin_ros.core.grounding import ground

FITTED = ConfidenceScale(phrase=LogOddsScale(5.0, -2.0), caption=LogOddsScale(3.0, -4.0), answer=LogOddsScale(0.5, 0.25),
                         choice_temperature=1.5)


def test_without_a_fit_nothing_is_changed() -> None:
    for probability in (0.0, 0.3, 1.0):
        assert LogOddsScale()(probability) == probability
    even = np.array([0.25, 0.75])
    assert ConfidenceScale().choices(even) is even


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.01, 50.0), st.floats(-50.0, 50.0))
def test_a_scale_keeps_the_order_and_stays_a_probability(one: float, other: float, slope: float, offset: float) -> None:
    scale = LogOddsScale(slope, offset)
    low, high = sorted((one, other))
    assert 0.0 <= scale(low) <= 1.0
    assert low == 0.0 or scale(low) <= scale(high)


def test_nothing_written_is_never_sure() -> None:
    assert LogOddsScale(2.0, 5.0)(0.0) == 0.0


def test_a_high_temperature_makes_choices_less_sure_and_keeps_the_best() -> None:
    sure = np.array([0.9, 0.09, 0.01])
    cooled, heated = (ConfidenceScale(choice_temperature=value).choices(sure) for value in (0.5, 2.0))
    assert heated.sum() == pytest.approx(1.0)
    assert heated.argmax() == cooled.argmax() == 0
    assert heated[0] < sure[0] < cooled[0]
    # The temperature of the scores themselves: a softmax over them divided by it.
    softmax = np.exp(np.log(sure) / 2)
    np.testing.assert_allclose(heated, softmax / softmax.sum())


def test_a_phrase_is_grounded_with_its_scale() -> None:
    raw = 'a crate<box><5><5><105><105></box>.'
    seen = [ground(raw, ends=[len(raw)], probabilities=[0.8], height_px=100, width_px=100, scale=scale).phrases[0].confidence
            for scale in (LogOddsScale(), LogOddsScale(2.0, 0.0))]
    assert seen == [pytest.approx(0.8), pytest.approx(16 / 17)]


def test_a_folder_without_the_file_is_uncalibrated(tmp_path: Path) -> None:
    assert read_confidence(tmp_path) == ConfidenceScale()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / CONFIDENCE_FILE).write_text(confidence_text(FITTED, {'pictures': 3}))
    assert read_confidence(tmp_path) == FITTED


@pytest.mark.parametrize('damage', ['{', '[]', '{"phrase": {}}', 'temperature'])
def test_a_damaged_file_names_the_command_that_fits_anew(tmp_path: Path, damage: str) -> None:
    if damage == 'temperature':
        damage = json.dumps({**json.loads(confidence_text(FITTED, {})), 'choice_temperature': 0.0})
    (tmp_path / CONFIDENCE_FILE).write_text(damage)
    with pytest.raises(ConfigError, match=r'penguin eval .* --fit-confidence'):
        read_confidence(tmp_path)
