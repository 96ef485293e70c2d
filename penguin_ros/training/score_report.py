"""Scores as Markdown tables. Knows nothing of how they were measured or of plots (score_plots.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LABELS = {
    'f1': 'kind+colour set F1', 'iou': 'mean IoU of matched boxes', 'set_exact': 'exact set of things',
    'video_f1': 'F1, newest frame of a clip', 'video_iou': 'IoU, newest frame of a clip',
    'video_set_exact': 'exact set, newest frame of a clip', 'region': 'what is in a region',
    'region_colour': 'colour of what is in a region', 'where_iou': 'where is X: IoU', 'where_absent': 'where is X: not there',
    'presence': 'is there an X', 'colour': 'colour of the X', 'count': 'how many', 'path': 'is the path clear',
    'digit': 'digit on a sign (at least 20 px)', 'sign_absent': 'no sign there', 'time': 'time questions, all four kinds',
    'change': 'what appeared, left, moved, changed colour', 'change_some': 'the same, where something did',
    'when': 'when was X seen: the exact stamp', 'when_near': 'when was X seen: within one frame',
    'when_between': 'when was X seen: the exact stamp, neither the first nor the newest', 'order': 'which came first',
    'passed': 'did an X pass'}
KIND_LABELS = {'phrase': 'phrases of captions', 'choice': 'choices', 'answer': 'free answers', 'caption': 'whole captions'}
_RIGHT_WHEN = {'phrase': 'kind, colour and a stated digit right, box IoU at least 0.5',
               'choice': 'the likeliest choice is the right one', 'answer': 'the answer is right, as scored above',
               'caption': 'all there is named, nothing else'}


def markdown(runs: Sequence[dict[str, Any]], streams: dict[str, Any] | None = None) -> str:
    """All tables of one evaluation."""
    parts = [comparison_table(runs)] if len(runs) > 1 else []
    if len(runs) == 1:
        parts = [score_table(runs[0]), reliability_table(runs[0])]
    if streams:
        parts.append(stream_table(streams))
    return '\n'.join(parts)


def score_table(run: dict[str, Any]) -> str:
    """The scores of one run."""
    lines = [f'{run["model"]}, {run["pictures"]} held-out pictures and {run["clips"]} clips, '
             f'{run["token_grid"]} visual tokens a picture:', '',
             '| what | score | 95 % interval | asked | always the same answer |', '| --- | --- | --- | --- | --- |']
    for name, score in _known(run):
        same = f'{score["same_answer"]:.3f}' if 'same_answer' in score else ''
        lines.append(f'| {LABELS[name]} | {score["value"]:.3f} | {score["low"]:.3f} to {score["high"]:.3f} | '
                     f'{score["count"]} | {same} |')
    return '\n'.join(lines) + '\n'


def comparison_table(runs: Sequence[dict[str, Any]]) -> str:
    """Several runs side by side, with half the width of the 95 % intervals."""
    lines = [f'{runs[0]["pictures"]} held-out pictures and {runs[0]["clips"]} clips, the same for all; plus and minus is half '
             'of the 95 % interval.', '', '| what | ' + ' | '.join(run_name(run) for run in runs) + ' |',
             '| --- |' + ' --- |' * len(runs)]
    for name in LABELS:
        scores = [run['scores'].get(name) for run in runs]
        if any(scores):
            cells = [f'{one["value"]:.3f} ± {(one["high"] - one["low"]) / 2:.3f}' if one else '' for one in scores]
            lines.append(f'| {LABELS[name]} | ' + ' | '.join(cells) + ' |')
    for kind, label in KIND_LABELS.items():
        found = [run['reliability'].get(kind) for run in runs]
        if any(found):
            lines.append(f'| calibration error, {label} | ' + ' | '.join(f'{one["ece"]:.3f}' if one else '' for one in found)
                         + ' |')
    lines.append('| visual tokens, picture and clip | ' + ' | '.join(
        f'{run["picture_tokens"]}, {run["clip_tokens_mean"]:.0f}' for run in runs) + ' |')
    lines.append('| caption ms, median | ' + ' | '.join(f'{run["caption_ms_median"]:.1f}' for run in runs) + ' |')
    return '\n'.join(lines) + '\n'


def reliability_table(run: dict[str, Any]) -> str:
    """How far the confidences of one run can be taken at their word."""
    lines = ["Expected calibration error (15 bins of equal width; of equal size), without and with the engine's scale:", '',
             '| what | right when | said | right | mean confidence | ECE without | ECE with |',
             '| --- | --- | --- | --- | --- | --- | --- |']
    for kind, one in run['reliability'].items():
        lines.append(f'| {KIND_LABELS[kind]} | {_RIGHT_WHEN[kind]} | {one["count"]} | {one["right"]:.3f} | '
                     f'{one["confidence"]:.3f} | {one["ece_unscaled"]:.3f}; {one["ece_equal_mass_unscaled"]:.3f} | '
                     f'{one["ece"]:.3f}; {one["ece_equal_mass"]:.3f} |')
    return '\n'.join(lines) + '\n'


def stream_table(streams: dict[str, Any]) -> str:
    """What visual tokens buy, policy by policy."""
    lines = [f'{streams["clips"]} held-out drives of {streams["frames"]} images, {streams["minutes"]:.1f} minutes in all. F1 '
             'of the caption in force at every image; time questions at the end of each drive:', '',
             '| policy | budget | visual tokens encoded / min | held at the end | F1 | time questions | asked |',
             '| --- | --- | --- | --- | --- | --- | --- |']
    for one in streams['points']:
        lines.append(f'| {one["title"]} | {one["budget"] or "none"} | {one["tokens_per_minute"]:,.0f} | '
                     f'{one["tokens_held_mean"]:.0f} | {_with_interval(one["scores"]["f1"])} | '
                     f'{_with_interval(one["scores"]["time"])} | {one["scores"]["time"]["count"]} |')
    return '\n'.join(lines) + '\n'


def run_name(run: dict[str, Any]) -> str:
    """What tells a run from the others: engine, backend and picture size."""
    return f'{run["name"]} {run["precision"]}, {run["backend"]}, {run["token_grid"]}'


def _with_interval(score: dict[str, float]) -> str:
    return f'{score["value"]:.3f} ({score["low"]:.3f} to {score["high"]:.3f})'


def _known(run: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    return [(name, run['scores'][name]) for name in LABELS if name in run['scores']]
