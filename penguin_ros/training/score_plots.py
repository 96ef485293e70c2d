"""Scores as pictures: skills, reliability, budgets, and what tokens buy. Knows nothing of how they were measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penguin_ros.training.score_report import KIND_LABELS, LABELS, run_name


def plots(runs: Sequence[dict[str, Any]], streams: dict[str, Any] | None, stem: Path) -> list[Path]:
    """Scores, reliability, budgets and streams as PNG files named after ``stem``; those there is something to show of."""
    import matplotlib
    matplotlib.use('Agg')

    made = []
    if runs:
        made.append(_plot_scores(runs, stem.with_name(f'{stem.name}.png')))
    if any(run['reliability'] for run in runs):
        made.append(_plot_reliability(runs, stem.with_name(f'{stem.name}_reliability.png')))
    if len({run['picture_tokens'] for run in runs}) > 1:
        made.append(_plot_budgets(runs, stem.with_name(f'{stem.name}_budgets.png')))
    if streams:
        made.append(_plot_streams(streams, stem.with_name(f'{stem.name}_streams.png' if runs else f'{stem.name}.png')))
    return made


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _bars(scores: Sequence[dict[str, float]]) -> tuple[list[float], list[list[float]]]:
    """Values, and how far their intervals reach down and up."""
    values = [one['value'] for one in scores]
    return values, [[max(one['value'] - one['low'], 0.0) for one in scores],
                    [max(one['high'] - one['value'], 0.0) for one in scores]]


def _plot_scores(runs: Sequence[dict[str, Any]], path: Path) -> Path:
    from matplotlib import pyplot

    names = [name for name in LABELS if any(name in run['scores'] for run in runs)]
    figure, axes = pyplot.subplots(figsize=(8, 1.4 + (0.26 + 0.06 * len(runs)) * len(names)), layout='constrained')
    for number, run in enumerate(runs):
        own = [name for name in names if name in run['scores']]
        values, reach = _bars([run['scores'][name] for name in own])
        offset = 0.6 * ((number + 0.5) / len(runs) - 0.5)
        axes.errorbar(values, [names.index(name) + offset for name in own], xerr=reach, fmt='o', markersize=4, capsize=2,
                      label=run_name(run))
    axes.set(yticks=range(len(names)), yticklabels=[LABELS[name] for name in names], xlim=(0, 1.01),
             xlabel='score and 95 % interval')
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc='lower left')
    return _save(figure, path)


def _plot_reliability(runs: Sequence[dict[str, Any]], path: Path) -> Path:
    """The reliability diagram: without a scale in grey, with it in colour; below, how often which confidence was given."""
    from matplotlib import pyplot

    kinds = [kind for kind in KIND_LABELS if any(kind in run['reliability'] for run in runs)]
    figure, grid = pyplot.subplots(2, len(kinds), figsize=(3.3 * len(kinds), 4.6), sharex=True, squeeze=False,
                                   layout='constrained', height_ratios=(3, 1))
    for (upper, lower), kind in zip(grid.T, kinds):
        upper.plot([0, 1], [0, 1], color='0.7', linewidth=1)
        for number, run in enumerate(runs):
            one = run['reliability'].get(kind)
            if one is None:
                continue
            name = run_name(run) + ', ' if len(runs) > 1 else ''
            if len(runs) == 1:
                upper.plot(*_points(one['bins_unscaled']), color='0.55', marker='.', linestyle='--',
                           label=f'without scale, ECE {one["ece_unscaled"]:.3f}')
            upper.plot(*_points(one['bins']), color=f'C{number}', marker='o', markersize=4,
                       label=f'{name}ECE {one["ece"]:.3f}')
            lower.step([found['confidence'] for found in one['bins']], [found['count'] for found in one['bins']],
                       where='mid', color=f'C{number}')
        upper.set_title(f'{KIND_LABELS[kind]}', fontsize=10)
        upper.set(xlim=(0, 1), ylim=(0, 1))
        lower.set(xlabel='confidence', ylim=(0, None))
        upper.grid(alpha=0.3)
        upper.legend(fontsize=7, loc='upper left')
    grid[0][0].set_ylabel('share that is right')
    grid[1][0].set_ylabel('how many')
    return _save(figure, path)


def _points(bins: Sequence[dict[str, float]]) -> tuple[list[float], list[float]]:
    return [one['confidence'] for one in bins], [one['right'] for one in bins]


def _plot_budgets(runs: Sequence[dict[str, Any]], path: Path) -> Path:
    """Scores against the visual tokens of a picture, one line for each engine and backend."""
    from matplotlib import pyplot

    shown = [name for name in ('f1', 'iou', 'digit', 'video_f1', 'time') if any(name in run['scores'] for run in runs)]
    figure, grid = pyplot.subplots(1, len(shown), figsize=(3.2 * len(shown), 3.2), squeeze=False, layout='constrained')
    for axes, name in zip(grid[0], shown):
        for line in dict.fromkeys((run['name'], run['precision'], run['backend']) for run in runs):
            own = sorted((run for run in runs if (run['name'], run['precision'], run['backend']) == line
                          and name in run['scores']), key=lambda run: run['picture_tokens'])
            if own:
                values, reach = _bars([run['scores'][name] for run in own])
                axes.errorbar([run['picture_tokens'] for run in own], values, yerr=reach, marker='o', markersize=4, capsize=2,
                              label=', '.join(line))
        axes.set_title(LABELS[name], fontsize=9)
        axes.set_xlabel('visual tokens of a picture')
        axes.grid(alpha=0.3)
    grid[0][0].legend(fontsize=7)
    return _save(figure, path)


def _plot_streams(streams: dict[str, Any], path: Path) -> Path:
    """F1 and answers about time against what was encoded, one line for each policy."""
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure, pair = pyplot.subplots(1, 2, figsize=(9.5, 3.8), layout='constrained')
    for axes, name, title in zip(pair, ('f1', 'time'), ('caption F1', 'time questions, share right')):
        for policy in dict.fromkeys(one['policy'] for one in streams['points']):
            own = sorted((one for one in streams['points'] if one['policy'] == policy),
                         key=lambda one: one['tokens_per_minute'])
            values, reach = _bars([one['scores'][name] for one in own])
            axes.errorbar([one['tokens_per_minute'] for one in own], values, yerr=reach, marker='o', markersize=4, capsize=2,
                          label=own[0]['title'])
        axes.set(xscale='log', xlabel='visual tokens encoded a minute')
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter('{x:,.0f}'))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3, which='both')
    pair[0].legend(fontsize=8)
    return _save(figure, path)
