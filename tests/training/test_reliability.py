"""Calibration: the error is nothing for those who know how often they err, and a fit lowers it on other statements."""

from __future__ import annotations

import numpy as np
import pytest

from penguin_ros.core.confidence import ConfidenceScale, LogOddsScale
from penguin_ros.training.reliability import (
    Statements,
    diagram,
    expected_error,
    fit_log_odds,
    fit_scale,
    fit_temperature,
    reliability,
)


def statements(seed: int, count: int = 4000) -> Statements:
    """A model that is shy about phrases, as its boxes make it, and too sure about choices."""
    rng = np.random.default_rng(seed)
    said = Statements()
    for kind, slope, offset in (('phrase', 4.0, -1.0), ('answer', 1.0, 0.5), ('caption', 2.0, -2.0)):
        means = rng.uniform(0.3, 0.95, count)
        likely = [LogOddsScale(slope, offset)(mean) for mean in means]
        said.means[kind] = list(zip(means.tolist(), (rng.random(count) < likely).tolist()))
    for _ in range(count):
        scores = rng.normal(0.0, 1.5, 4)
        true = np.exp(scores) / np.exp(scores).sum()
        sharp = np.exp(2.0 * scores) / np.exp(2.0 * scores).sum()
        said.choices.append((sharp, int(rng.choice(4, p=true))))
    return said


def test_who_is_right_as_often_as_said_has_no_error() -> None:
    confidences = np.repeat([0.2, 0.8], 500)
    right = np.concatenate([np.arange(500) < 100, np.arange(500) < 400])
    assert expected_error(confidences, right) == pytest.approx(0.0)
    assert expected_error(confidences, right, equal_mass=True) < 0.3
    assert expected_error(np.full(100, 0.9), np.zeros(100, dtype=bool)) == pytest.approx(0.9)
    assert expected_error(np.zeros(0), np.zeros(0, dtype=bool)) == 0.0


def test_a_fit_finds_the_scale_and_lowers_the_error_on_other_statements() -> None:
    scale = fit_scale(statements(1))
    assert (scale.phrase.slope, scale.phrase.offset) == (pytest.approx(4.0, rel=0.15), pytest.approx(-1.0, abs=0.25))
    assert scale.choice_temperature == pytest.approx(2.0, rel=0.1)
    found = reliability(statements(2), scale)
    for kind in ('phrase', 'choice', 'caption'):
        assert found[kind]['ece_unscaled'] > 0.08
        assert found[kind]['ece'] < 0.04, kind
        assert found[kind]['ece_equal_mass'] < 0.04, kind
        assert sum(one['count'] for one in found[kind]['bins']) == found[kind]['count'] == 4000


def test_a_fit_stays_finite_where_all_or_nothing_is_right() -> None:
    for right in (True, False):
        scale = fit_log_odds(np.linspace(0.4, 0.9, 50), np.full(50, right))
        assert np.isfinite([scale.slope, scale.offset]).all()
        assert (scale(0.6) > 0.9) == right
    assert fit_log_odds(np.zeros(0), np.zeros(0, dtype=bool)) == LogOddsScale()
    assert fit_temperature([]) == 1.0
    assert fit_scale(Statements()) == ConfidenceScale()


def test_a_scale_never_falls() -> None:
    means = np.linspace(0.1, 0.9, 200)
    assert fit_log_odds(means, means < 0.5).slope > 0


def test_the_diagram_leaves_empty_bins_out() -> None:
    assert diagram(np.array([0.95, 0.97]), np.array([True, False])) == [{'confidence': 0.96, 'right': 0.5, 'count': 2}]


def test_statements_add_up() -> None:
    both = statements(1, 10)
    both.add(statements(2, 5))
    assert both.counts() == {'phrase': 15, 'choice': 15, 'answer': 15, 'caption': 15}
