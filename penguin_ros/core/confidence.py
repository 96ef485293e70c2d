"""How sure the model is, on a scale where of what is said with 0.8 eight in ten are right. Knows nothing of how it is fitted.

What a model writes has token probabilities, and their mean is a poor guess of how often it is right: edges of a box are
spread over neighbouring tokens, words are not. So each kind of result has its own scale, fitted on scenes that neither
training nor scoring has seen (`penguin eval --fit-confidence`) and kept beside the engine in `confidence.json`. A model
without that file gives the plain means: then a confidence ranks results, but is no probability.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penguin_ros.core.errors import ConfigError

CONFIDENCE_FILE = 'confidence.json'
_CLOSEST = 1e-6         # to 0 and 1: log-odds beyond that would be infinite


@dataclass(frozen=True)
class LogOddsScale:
    """A mean probability made one of being right: its log-odds times ``slope`` plus ``offset`` (Platt's scaling)."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, probability: float) -> float:
        if self == LogOddsScale() or not 0.0 < probability <= 1.0:      # 0: nothing was written
            return probability
        held = min(max(probability, _CLOSEST), 1.0 - _CLOSEST)
        scaled = self.slope * math.log(held / (1.0 - held)) + self.offset
        return 1.0 / (1.0 + math.exp(-max(-50.0, min(scaled, 50.0))))


@dataclass(frozen=True, kw_only=True)
class ConfidenceScale:
    """One scale for each kind of result; as made, nothing is scaled."""

    phrase: LogOddsScale = LogOddsScale()
    caption: LogOddsScale = LogOddsScale()
    answer: LogOddsScale = LogOddsScale()
    choice_temperature: float = 1.0     # above 1: the model is less sure than it says

    def choices(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities of the choices of one question, at this temperature; they sum to 1 as before."""
        if self.choice_temperature == 1.0:
            return probabilities
        scaled = np.power(probabilities, 1.0 / self.choice_temperature)
        return scaled / scaled.sum()


def read_confidence(folder: Path) -> ConfidenceScale:
    """The scales of the model in this folder. Raises ConfigError for a file that cannot be used."""
    path = folder / CONFIDENCE_FILE
    if not path.exists():
        return ConfidenceScale()
    try:
        stated = json.loads(path.read_text(encoding='utf-8'))
        scale = ConfidenceScale(
            **{kind: LogOddsScale(float(stated[kind]['slope']), float(stated[kind]['offset']))
               for kind in ('phrase', 'caption', 'answer')}, choice_temperature=float(stated['choice_temperature']))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f'{path} cannot be used: {error!r}. Fit it again: penguin eval {folder} --fit-confidence') from error
    if not scale.choice_temperature > 0 or not all(math.isfinite(value) for value in (
            scale.choice_temperature, *(part for one in (scale.phrase, scale.caption, scale.answer)
                                        for part in (one.slope, one.offset)))):
        raise ConfigError(f'{path} holds numbers that are no scale. Fit it again: penguin eval {folder} --fit-confidence')
    return scale


def weights_fitted_on(folder: Path) -> dict[str, str]:
    """File names and sha256 of the weights this folder's scales were fitted on; none where that is not said."""
    try:
        weights = json.loads((folder / CONFIDENCE_FILE).read_text(encoding='utf-8'))['fitted']['weights']
        return {str(name): str(sha256) for name, sha256 in weights.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}           # what is wrong with such a file is said by read_confidence, when it is used


def confidence_text(scale: ConfidenceScale, fitted: dict[str, Any]) -> str:
    """The content of confidence.json; ``fitted`` says on what, its `weights` which files with which sha256."""
    return json.dumps({**asdict(scale), 'fitted': fitted}, indent=1) + '\n'
