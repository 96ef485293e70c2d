"""Draw training logs: losses and what the looks at held-out scenes found. Knows nothing of training."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LOSSES = {'answer_loss': 'answers', 'dense_loss': 'dense (auxiliary)', 'memory_loss': 'memory (auxiliary)',
          'pointer_loss': 'pointers (auxiliary)'}
# Curriculum field by loss, and what it was before it had one.
_WEIGHTS = {'dense_loss': ('dense_weight', 1.0), 'memory_loss': ('memory_weight', 0.0), 'pointer_loss': ('pointer_weight', 0.0)}
FIGURES = {'f1': 'caption F1', 'iou': 'caption IoU', 'colour': 'colour', 'region': 'region', 'count': 'count',
           'path': 'path clear', 'video_when': 'when (videos)', 'video_change': 'what changed (videos)'}


def draw_curves(logs: Sequence[Path], picture: Path) -> None:
    """The `log.jsonl` of one run, or of runs that went on from each other, behind one another as a PNG."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout='constrained')
    shown: dict[str, list[tuple[float, float]]] = {name: [] for name in (*LOSSES, *FIGURES)}
    seen = 0.0
    for log in logs:
        steps, losses = _steps(log)
        for line in steps:
            images = seen + line['images'] / 1000
            told = {name: line[name] for name in losses}
            for name, value in {**told, **{name: line.get('valid', {}).get(name) for name in FIGURES}}.items():
                if value is not None:
                    shown[name].append((images, value))
        seen += steps[-1]['images'] / 1000 if steps else 0.0
        for name in losses:
            shown[name].append((seen, math.nan))        # the next run's heads are others: no line leads to them
        if log is not logs[-1]:
            for axes in (left, right):
                axes.axvline(seen, color='grey', linestyle=':', linewidth=1)
    for axes, names in ((left, LOSSES), (right, FIGURES)):
        for name, label in names.items():
            if shown[name]:
                axes.plot(*zip(*shown[name]), label=label, marker='.' if axes is right else None)
    left.set(xlabel='thousand images seen', ylabel='loss', yscale='log', title='training loss')
    right.set(xlabel='thousand images seen', ylim=(0, 1), title='held-out scenes')
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def _steps(log: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """A run's lines about steps, and which losses were part of it."""
    lines = [json.loads(line) for line in log.read_text(encoding='utf-8').splitlines()]
    curricula = [line['run']['curriculum'] for line in lines if 'run' in line]
    losses = [name for name in LOSSES
              if name not in _WEIGHTS or all(curriculum.get(*_WEIGHTS[name]) > 0 for curriculum in curricula)]
    return [line for line in lines if 'step' in line], losses
