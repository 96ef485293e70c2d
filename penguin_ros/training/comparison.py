"""Runs of several variants and seeds become a table, a plot and paired differences. Knows nothing of how runs are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Run = Mapping[str, Any]     # variant, seed, scores, curve, cpu_s
Pair = tuple[str, str]      # a variant, and the one it is held against
LABELS = {
    'f1': 'caption F1', 'iou': 'caption IoU', 'colour': 'colour of the X', 'region': 'what is in a region',
    'where_iou': 'where is X: IoU', 'count': 'how many', 'dense_loss': 'dense loss', 'f1_course': 'F1 over the run'}
# Student's t, two-sided 95 %, by degrees of freedom from 1; beyond the list its last entry, which is a little wide.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def compare(runs: Sequence[Run], *, what: Mapping[str, str], pairs: Sequence[Pair]) -> dict[str, Any]:
    """Mean and spread of every figure by variant, and the differences of pairs of variants, by seed, with 95 % intervals.

    Variants and pairs of which there are no runs are left out.
    """
    by_seed = {name: {run['seed']: run for run in runs if run['variant'] == name} for name in what}
    values = {name: {figure: {seed: value for seed, run in own.items() if (value := _figure(run, figure)) is not None}
                     for figure in LABELS} for name, own in by_seed.items() if own}
    variants = {name: {'what': what[name], 'cpu_s': round(float(np.mean([run['cpu_s'] for run in by_seed[name].values()])), 1),
                       'scores': {figure: _spread(found) for figure, found in own.items() if found}}
                for name, own in values.items()}
    differences = []
    for name, other in pairs:
        found = {}
        for figure in LABELS:
            ours, theirs = (values.get(one, {}).get(figure, {}) for one in (name, other))
            both = {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}
            if both:
                found[figure] = {**_spread(both), **_interval(list(both.values()))}
        if found:
            differences.append({'variant': name, 'minus': other, 'scores': found})
    return {'variants': variants, 'differences': differences}


def _figure(run: Run, name: str) -> Any:
    if name == 'f1_course':     # who sees earlier has more of it, whatever the end
        return float(np.mean([look['f1'] for look in run['curve']]))
    return run['scores'].get(name)


def _spread(values: Mapping[int, float]) -> dict[str, Any]:
    numbers = list(values.values())
    found: dict[str, Any] = {'by_seed': {str(seed): round(value, 4) for seed, value in values.items()},
                             'mean': round(float(np.mean(numbers)), 4)}
    if len(numbers) > 1:
        found['sd'] = round(float(np.std(numbers, ddof=1)), 4)
    return found


def _interval(differences: Sequence[float]) -> dict[str, float]:
    """Of the mean difference, by Student's t; nothing from one pair."""
    freedom = len(differences) - 1
    if freedom < 1:
        return {}
    half = _T95[min(freedom, len(_T95)) - 1] * float(np.std(differences, ddof=1)) / len(differences) ** 0.5
    mean = float(np.mean(differences))
    return {'low': round(mean - half, 4), 'high': round(mean + half, 4)}


def markdown_tables(summary: Mapping[str, Any]) -> str:
    """Means with spreads, then the differences; those whose interval leaves out 0 are bold."""
    names = [name for name in LABELS if any(name in variant['scores'] for variant in summary['variants'].values())]
    labels = [LABELS[name] for name in names]
    lines = [f'* `{variant}`: {found["what"]}' for variant, found in summary['variants'].items()]
    lines += ['', 'Mean and standard deviation over the seeds:', '',
              _line('run', [*labels, 'CPU seconds']), _line('---', ['---'] * (len(names) + 1))]
    for variant, found in summary['variants'].items():
        means = [_mean_cell(found['scores'].get(name)) for name in names]
        lines.append(_line(variant, [*means, f'{found["cpu_s"]:.0f}']))
    lines += ['', "Differences, paired by seed, with 95 % intervals (Student's t); bold where the interval leaves out 0:", '',
              _line('runs', labels), _line('---', ['---'] * len(names))]
    for found in summary['differences']:
        cells = [_difference_cell(found['scores'].get(name)) for name in names]
        lines.append(_line(f'{found["variant"]} minus {found["minus"]}', cells))
    return '\n'.join(lines) + '\n'


def _line(first: str, cells: Sequence[str]) -> str:
    return '| ' + ' | '.join([first, *cells]) + ' |'


def _mean_cell(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return ''
    return f'{score["mean"]:.3f} ± {score["sd"]:.3f}' if 'sd' in score else f'{score["mean"]:.3f}'


def _difference_cell(difference: Mapping[str, Any] | None) -> str:
    if difference is None:
        return ''
    text = f'{difference["mean"]:+.3f}'
    if 'low' not in difference:
        return text
    text += f' ({difference["low"]:+.3f} to {difference["high"]:+.3f})'
    return f'**{text}**' if difference['low'] > 0 or difference['high'] < 0 else text


def draw_comparison(runs: Sequence[Run], picture: Path, *, base: str) -> None:
    """One small plot per variant: caption F1 on the way beside the base's, mean and range over the seeds; then the ends."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    others = [name for name in dict.fromkeys(run['variant'] for run in runs) if name != base]
    columns = 4
    rows = -(-(len(others) + 1) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.2 * columns, 2.7 * rows), layout='constrained', squeeze=False,
                                   sharey=False)
    places = list(axes.flat)
    for place, name in zip(places, others):
        for variant, colour in ((base, '0.45'), (name, 'tab:blue')):
            curves = [run['curve'] for run in runs if run['variant'] == variant]
            if curves:
                steps = [look['step'] for look in curves[0]]
                f1 = np.array([[look['f1'] for look in curve] for curve in curves])
                place.fill_between(steps, f1.min(axis=0), f1.max(axis=0), color=colour, alpha=0.2, linewidth=0)
                place.plot(steps, f1.mean(axis=0), color=colour, label=variant)
        place.set(title=name, xlabel='steps', ylabel='caption F1', ylim=(0, None))
        place.legend(fontsize=7, frameon=False)
    end = places[len(others)]
    for height, name in enumerate(reversed(others)):
        ends = {run['seed']: run['scores']['f1'] for run in runs if run['variant'] == name}
        pairs = [ends[run['seed']] - run['scores']['f1'] for run in runs if run['variant'] == base and run['seed'] in ends]
        end.plot(pairs, [height] * len(pairs), 'o', color='tab:blue', markersize=4)
    end.axvline(0, color='0.45', linewidth=1)
    end.set(title='F1 at the end, minus base, by seed', yticks=range(len(others)), yticklabels=list(reversed(others)))
    for place in places:
        place.grid(alpha=0.25)
        place.title.set_fontsize(9)
    for place in places[len(others) + 1:]:
        place.set_visible(False)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
