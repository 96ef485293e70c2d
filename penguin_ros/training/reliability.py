"""Is what is said with 0.8 right eight times in ten? Calibration errors, and the scales that lower them. Knows no model.

The expected calibration error (ECE) sorts statements into bins by confidence and takes the mean distance, over all
statements, between a bin's mean confidence and its share of right ones: 15 bins of equal width, and 15 of equal size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penguin_ros.core.confidence import ConfidenceScale, LogOddsScale

BINS = 15
KINDS = ('phrase', 'choice', 'answer', 'caption')
_CLOSEST = 1e-6         # as in core/confidence.py: log-odds stay finite
_STEPS = 50
_TEMPERATURES = np.geomspace(0.2, 5.0, 241)


@dataclass
class Statements:
    """What a model said with which confidence, before any scale, and whether it was right."""

    means: dict[str, list[tuple[float, bool]]] = field(default_factory=lambda: defaultdict(list))   # phrase, caption, answer
    choices: list[tuple[np.ndarray, int]] = field(default_factory=list)     # probabilities, and which choice is right

    def add(self, others: Statements) -> None:
        for kind, found in others.means.items():
            self.means[kind] += found
        self.choices += others.choices

    def counts(self) -> dict[str, int]:
        """How many statements of each of KINDS there are."""
        return {kind: len(self.choices if kind == 'choice' else self.means[kind]) for kind in KINDS}

    def scaled(self, kind: str, scale: ConfidenceScale) -> tuple[np.ndarray, np.ndarray]:
        """Confidences of one of KINDS on a scale, and which were right; of choices those of the one chosen."""
        if kind == 'choice':
            chosen = [scale.choices(probabilities) for probabilities, _ in self.choices]
            return (np.array([found.max() for found in chosen], dtype=float),
                    np.array([int(found.argmax()) == right for found, (_, right) in zip(chosen, self.choices)], dtype=bool))
        on_scale: LogOddsScale = getattr(scale, kind)
        return (np.array([on_scale(mean) for mean, _ in self.means[kind]], dtype=float),
                np.array([right for _, right in self.means[kind]], dtype=bool))


# -- fitting -----------------------------------------------------------------------------------------------------------

def fit_scale(said: Statements) -> ConfidenceScale:
    """The scales under which what was said is likeliest to have turned out as it did. Fit and score on different scenes."""
    return ConfidenceScale(**{kind: fit_log_odds(*said.scaled(kind, ConfidenceScale()))
                              for kind in ('phrase', 'caption', 'answer')}, choice_temperature=fit_temperature(said.choices))


def fit_log_odds(means: np.ndarray, right: np.ndarray) -> LogOddsScale:
    """Platt's scaling by Newton's method. A slight pull towards no change keeps it finite where all are right or wrong."""
    if not len(means):
        return LogOddsScale()
    held = np.clip(means, _CLOSEST, 1 - _CLOSEST)
    inputs = np.column_stack([np.log(held / (1 - held)), np.ones(len(held))])
    unchanged, pull = np.array([1.0, 0.0]), np.diag([0.1, 0.1])
    weights = unchanged.copy()
    loss = _loss(weights, inputs, right, unchanged, pull)
    for _ in range(_STEPS):
        likely = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (likely - right) + pull @ (weights - unchanged)
        step = np.linalg.solve((inputs * (likely * (1 - likely))[:, None]).T @ inputs + pull, slope)
        while True:                     # a whole step may lead past the least loss
            tried = _loss(weights - step, inputs, right, unchanged, pull)
            if tried <= loss or np.abs(step).max() < 1e-9:
                break
            step /= 2
        weights, loss = weights - step, min(tried, loss)
        if np.abs(step).max() < 1e-7:
            break
    # A falling scale would say that the surer the model is, the likelier it errs: too few statements to tell.
    return LogOddsScale(round(max(float(weights[0]), 0.01), 4), round(float(weights[1]), 4))


def _loss(weights: np.ndarray, inputs: np.ndarray, right: np.ndarray, unchanged: np.ndarray, pull: np.ndarray) -> float:
    signed = np.where(right, -1.0, 1.0) * (inputs @ weights)
    away = weights - unchanged
    return float(np.logaddexp(0.0, signed).sum() + away @ pull @ away / 2)


def fit_temperature(choices: Sequence[tuple[np.ndarray, int]]) -> float:
    """The temperature under which the right choices are likeliest."""
    if not choices:
        return 1.0
    # Another temperature changes a choice's share among its question's choices only, so the plain shares are enough.
    logs = [(np.log(np.maximum(shares, 1e-300)), right) for shares, right in choices]
    losses = [sum(_log_total(log / temperature) - log[right] / temperature for log, right in logs)
              for temperature in _TEMPERATURES]
    return round(float(_TEMPERATURES[int(np.argmin(losses))]), 4)


def _log_total(log: np.ndarray) -> float:
    return float(log.max() + np.log(np.exp(log - log.max()).sum()))


# -- judging -----------------------------------------------------------------------------------------------------------

def expected_error(confidences: np.ndarray, right: np.ndarray, *, equal_mass: bool = False) -> float:
    """ECE over BINS bins of equal width, or of equal size."""
    if not len(confidences):
        return 0.0
    return float(sum(len(one) * abs(confidences[one].mean() - right[one].mean())
                     for one in _bins(confidences, equal_mass)) / len(confidences))


def _bins(confidences: np.ndarray, equal_mass: bool) -> list[np.ndarray]:
    """Which statements are in each bin that has any."""
    if equal_mass:
        found = np.array_split(np.argsort(confidences, kind='stable'), BINS)
    else:
        bins = np.minimum((confidences * BINS).astype(int), BINS - 1)
        found = [np.flatnonzero(bins == number) for number in range(BINS)]
    return [one for one in found if len(one)]


def reliability(said: Statements, scale: ConfidenceScale) -> dict[str, dict[str, Any]]:
    """For each of KINDS that was heard: calibration errors with and without the scale, and the bins of the diagram."""
    figures = {}
    for kind in KINDS:
        plain, right = said.scaled(kind, ConfidenceScale())
        if not len(plain):
            continue
        scaled, right_scaled = said.scaled(kind, scale)
        figures[kind] = {
            'count': len(plain), 'right': round(float(right.mean()), 4), 'confidence': round(float(scaled.mean()), 4),
            'ece': round(expected_error(scaled, right_scaled), 4),
            'ece_equal_mass': round(expected_error(scaled, right_scaled, equal_mass=True), 4),
            'ece_unscaled': round(expected_error(plain, right), 4),
            'ece_equal_mass_unscaled': round(expected_error(plain, right, equal_mass=True), 4),
            'bins': diagram(scaled, right_scaled), 'bins_unscaled': diagram(plain, right)}
    return figures


def diagram(confidences: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Mean confidence, share of right ones and number of every bin of equal width that has any."""
    return [{'confidence': round(float(confidences[one].mean()), 4), 'right': round(float(right[one].mean()), 4),
             'count': len(one)} for one in _bins(confidences, equal_mass=False)]
