"""Draw a training log: losses and what the looks at held-out scenes found. Knows nothing of training."""

from __future__ import annotations

import json
from pathlib import Path


def draw_curves(log: Path, picture: Path) -> None:
    """`log.jsonl` of a run as a PNG."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    lines = [json.loads(line) for line in log.read_text(encoding='utf-8').splitlines()]
    steps = [line for line in lines if 'step' in line]
    looks = [line for line in steps if 'valid' in line]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout='constrained')
    for name, label in (('answer_loss', 'answers'), ('dense_loss', 'dense (auxiliary)')):
        told = [(line['images'] / 1000, line[name]) for line in steps if line[name] is not None]
        if told:
            left.plot(*zip(*told), label=label)
    left.set(xlabel='thousand images seen', ylabel='loss', yscale='log', title='training loss')
    for name, label in (('f1', 'caption F1'), ('iou', 'caption IoU'), ('colour', 'colour'), ('region', 'region'),
                        ('count', 'count'), ('path', 'path clear'), ('video_change', 'what changed')):
        shown = [(line['images'] / 1000, line['valid'][name]) for line in looks if name in line['valid']]
        if shown:
            right.plot(*zip(*shown), label=label, marker='.')
    right.set(xlabel='thousand images seen', ylim=(0, 1), title='held-out scenes')
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
