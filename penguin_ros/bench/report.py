"""Figures become a report: one table per footage, the numbers to reach, plots. Knows nothing of how they were measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penguin_ros.bench.policies import POLICIES

_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ('tokens_encoded_per_minute', 'visual tokens encoded / min', '{:,.0f}'),
    ('tokens_read_per_minute', 'visual tokens read / min', '{:,.0f}'),
    ('encoder_gmac_per_frame', 'encoder GMAC / frame', '{:.3f}'), ('decoder_gmac_per_frame', 'decoder GMAC / frame', '{:.3f}'),
    ('frame_ms_mean', 'ms / frame', '{:.1f}'), ('tick_ms_mean', 'ms / caption tick', '{:.1f}'),
    ('frame_cpu_ms', 'CPU ms / frame', '{:.1f}'), ('tick_cpu_ms', 'CPU ms / tick', '{:.1f}'),
    ('tick_gmac', 'GMAC / tick', '{:.3f}'),
    ('captions', 'captions', '{:d}'), ('f1', 'F1', '{:.3f}'), ('iou', 'IoU', '{:.3f}'),
    ('f1_written', 'F1 as written', '{:.3f}'), ('missed_share', 'changes missed', '{:.1%}'), ('delay_s', 'delay s', '{:.2f}'),
    ('tokens_held', 'tokens held', '{:.0f}'), ('cache_mb', 'cache MB', '{:.2f}'))


def markdown(result: dict[str, Any], pictures: Sequence[str] = (), notes: str = '') -> str:
    """The whole report. ``pictures`` are linked, ``notes`` (what was tried where a number was missed) are put at the end."""
    parts = ['# What a frame costs', '',
             'Written by `penguin bench`; measured, not edited. Every policy sees the same images on the same machine in one '
             'run.', '', *_settings(result), '']
    for footage in result['footage']:
        parts += [f'## {footage["name"]}', '', *_ladder(footage), '']
    parts += ['## Numbers to reach', '', *_verdicts(result['verdicts']), '']
    for title, lines in (('Drafted captions', _writing(result)), ('Minute by minute', _ageing(result)),
                         ('Frames dropped', _forgetting(result)), ('Real size', _real_size(result)),
                         ('Real size, beside plain transformers', _steps(result))):
        if lines:
            parts += [f'## {title}', '', *lines, '']
    if notes:
        parts += ['## What was missed, and what was tried', '', notes.strip(), '']
    if pictures:
        parts += ['## Plots', '', *(f'![{Path(picture).stem}]({picture})' for picture in pictures), '']
    return '\n'.join(parts)


def _settings(result: dict[str, Any]) -> list[str]:
    settings, machine = result['settings'], result['machine']
    return [*(f'    {command}' for command in result.get('commands', [])), '',
            f'- machine: {machine["processor"]}, {machine["cores"]} cores, {machine["memory_gb"]:.0f} GB; '
            f'{machine["software"]}; load at the start {machine["load"]:.1f}',
            f'- model: {result["model"]}, engine {result["engine"]}, {settings["threads"]} thread per engine call',
            f'- window: {settings["frames"]} frames a camera for every policy; budget {settings["window_tokens"]} visual '
            'tokens a camera for (c), (d) and (e), none for (a) and (b)',
            f'- (b) takes one frame in {settings["every"]}; (a) to (d) write without drafts',
            '- F1 (kind and colour) and IoU are of the caption in force at every image, against its truth; "as written" is of '
            'captions at their own images',
            '- a change is missed when no caption in force has it right within 3 s; the delay is that of those told',
            '- multiply-adds are computed from the shapes of every engine call; CPU time is that of the process, which other '
            'work on the machine does not lengthen as it does wall time']


def _ladder(footage: dict[str, Any]) -> list[str]:
    lines = [f'{footage["images"]} images, {footage["seconds"]:.0f} s, {footage["cameras"]} '
             f'camera{"s" if footage["cameras"] > 1 else ""} at {footage["rate_hz"]:g} Hz; {footage["changes"]} changes.', '',
             '| policy | ' + ' | '.join(title for _, title, _ in _COLUMNS) + ' |', '| --- |' + ' --- |' * len(_COLUMNS)]
    for found in footage['policies']:
        cells = [pattern.format(found[name]) for name, _, pattern in _COLUMNS]
        lines.append(f'| ({found["policy"]}) {POLICIES[found["policy"]][0]} | ' + ' | '.join(cells) + ' |')
    same = footage.get('same_text')
    if same:
        lines += ['', f'Text of (d) and (e): equal in {same["whole_equal"]} of {same["whole"]} captions where nothing had been '
                  f'dropped or thinned, in {same["equal"]} of {same["captions"]} in all.']
    kept = footage.get('same_text_all_kept')
    if kept:
        lines.append(f'With a budget that keeps every frame: equal in {kept["equal"]} of {kept["captions"]}.')
    return lines


def _verdicts(verdicts: list[dict[str, Any]]) -> list[str]:
    lines = ['| what | needed | measured | reached |', '| --- | --- | --- | --- |']
    return lines + [f'| {one["what"]} | {one["needed"]} | {one["measured"]} | {_answer(one)} |'
                    for one in verdicts]


def _answer(verdict: dict[str, Any]) -> str:
    if verdict['needed'] == '-':
        return '-'
    return 'yes' if verdict['reached'] else '**no**'


def _writing(result: dict[str, Any]) -> list[str]:
    found = result.get('writing')
    if not found:
        return []
    lines = [f'Every image of the recording captioned on its own, the caption before as draft: {found["equal"]} of '
             f'{found["captions"]} texts equal to plain greedy decoding. With a useless draft: '
             f'{found["useless_draft_slower"]:+.1%} time.', '',
             '| images | captions | tokens | passes plain | passes drafted | accepted a pass | ms plain | ms drafted '
             '| speed-up |',
             '| --- |' + ' --- |' * 8]
    for name in ('all', 'unchanged'):
        some = found[name]
        if some['captions']:
            lines.append(f'| {name} | {some["captions"]} | {some["tokens"]} | {some["plain_passes"]} | '
                         f'{some["drafted_passes"]} | {some["accepted_per_pass"]:.2f} | '
                         f'{some["plain_ms"]:.1f} | {some["drafted_ms"]:.1f} | '
                         f'{some["speedup"]:.2f} |')
    return lines


def _ageing(result: dict[str, Any]) -> list[str]:
    lines = []
    for title, found in result.get('ageing', {}).items():
        last = found['minutes']
        if last < 2:
            continue
        lines += [f'{title}, minute 1 and minute {last}: {found["frame_ms"][0]:.2f} and {found["frame_ms"][-1]:.2f} ms a frame '
                  f'({found["frame_ms"][-1] / found["frame_ms"][0] - 1:+.1%}), {found["gmac_per_frame"][0]:.3f} and '
                  f'{found["gmac_per_frame"][-1]:.3f} GMAC a frame, {found["rss_mb"][0]:.0f} and {found["rss_mb"][-1]:.0f} MB '
                  f'of process memory ({found["rss_mb"][-1] / found["rss_mb"][0] - 1:+.1%}).', '',
                  '| minute | ' + ' | '.join(str(minute + 1) for minute in range(last)) + ' |', '| --- |' + ' --- |' * last,
                  '| ms a frame | ' + ' | '.join(f'{value:.2f}' for value in found['frame_ms']) + ' |',
                  '| CPU ms a frame | ' + ' | '.join(f'{value:.2f}' for value in found['cpu_ms']) + ' |',
                  '| GMAC a frame | ' + ' | '.join(f'{value:.3f}' for value in found['gmac_per_frame']) + ' |',
                  '| memory MB | ' + ' | '.join(f'{value:.0f}' for value in found['rss_mb']) + ' |', '']
    return lines[:-1]


def _forgetting(result: dict[str, Any]) -> list[str]:
    found = result.get('forgetting')
    if not found:
        return []
    asked = next(iter(found.values()))
    lines = ['Clips of 6 to 12 images, asked what changed, when, in which order and what passed; share of right answers.', '',
             '| stream | ' + ' | '.join(f'{skill} ({one["asked"]} asked)' for skill, one in asked.items()) + ' |',
             '| --- |' + ' --- |' * len(asked)]
    for case, skills in found.items():
        lines.append(f'| {case} | ' + ' | '.join(f'{one["right"]:.3f}' for one in skills.values()) + ' |')
    return lines


def _real_size(result: dict[str, Any]) -> list[str]:
    found = result.get('real_size')
    if not found:
        return []
    lines = [f'Random weights, {found["parameters"] / 1e9:.2f} G parameters ({found["encoder_layers"]} encoder and '
             f'{found["decoder_layers"]} decoder layers of 28 and 28), {found["dtype"]}, {found["device"]}. One caption tick '
             f'of {found["new_tokens"]} tokens at most, without drafts, behind {found["frames"] - 1} frames '
             '(`penguin bench --real-size`).', '',
             '| policy | tick s | against (a) | tokens encoded | tokens read | encoder GMAC | decoder GMAC | passes |',
             '| --- |' + ' --- |' * 7]
    first_s = found['policies']['a']['tick_s']
    for name, one in found['policies'].items():
        lines.append(f'| ({name}) {POLICIES[name][0]} | {one["tick_s"]:.2f} | {first_s / one["tick_s"]:.1f} x | '
                     f'{one["tokens_encoded"]} | {one["tokens_read"]} | {one["encoder_gmac"]:.1f} | '
                     f'{one["decoder_gmac"]:.1f} | {one["passes"]} |')
    return lines


def _steps(result: dict[str, Any]) -> list[str]:
    found = result.get('steps')
    if not found:
        return []
    scene, machine = found['scene'], found['machine']
    kept = scene['kept_tokens'] // scene['frame_tokens']
    where = found['device'] if found['is_gpu'] else f'{machine["processor"]}, {found["device"]}'
    graphs = 'decode and verify replayed as CUDA graphs' if found['graphs'] else 'no graphs: those need CUDA'
    lines = [f'    {found["command"]}', '',
             f'{where}; {found["dtype"]}; {found["software"]}; load of the machine at the start {machine["load"]:.1f}. Random '
             f'weights of {found["parameters"] / 1e9:.2f} G parameters, {found["encoder_layers"]} of 28 encoder and '
             f'{found["decoder_layers"]} of 28 decoder layers, the same for both. These are not figures of an Orin: '
             '`penguin plan` computes those.', '',
             f'Ours is the torch backend ({graphs}) behind {kept} kept frames of {scene["frame_tokens"]} visual tokens. Plain '
             'transformers has the same layers (its own Qwen3 classes, sdpa attention) and keeps nothing between captions: it '
             f'encodes all {kept + 1} frames and reads the whole window in `generate`. Steps are medians of '
             f'{found["repeats"]}, captions of {found["ticks"]}.', '',
             '| step | ours ms | transformers ms | times | ours CPU ms | transformers CPU ms | times |',
             '| --- |' + ' --- |' * 6]
    for step in found['steps']:
        lines.append(f'| {step["name"]} | {step["ours_ms"]:,.1f} | {step["plain_ms"]:,.1f} | '
                     f'{step["plain_ms"] / step["ours_ms"]:.1f} | {step["ours_cpu_ms"]:,.1f} | {step["plain_cpu_ms"]:,.1f} | '
                     f'{step["plain_cpu_ms"] / max(step["ours_cpu_ms"], 1e-9):.1f} |')
    return [*lines, '',
            f'A caption of {scene["caption_tokens"]} tokens took {found["drafted_passes"]} engine calls with a draft of which '
            f'{scene["accepted"]:.0%} is right, {found["undrafted_passes"]} without. Logits behind the prompt differ by '
            f'{found["logits_difference"]:.2%} of the largest between the two; their texts begin with '
            f'{found["same_tokens"]} equal tokens (random weights leave many near-equal logits, which 16 bits may swap).']


def verdicts(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The numbers to reach, as far as this run measured them."""
    found: list[dict[str, Any]] = []

    def add(what: str, needed: str, measured: str, reached: bool) -> None:
        found.append({'what': what, 'needed': needed, 'measured': measured, 'reached': reached})

    for footage in result['footage']:
        policies = {one['policy']: one for one in footage['policies']}
        ours, name = policies.get('e'), footage['short']
        if ours is None:
            continue
        if 'a' in policies:
            whole = policies['a']
            fewer = whole['tokens_encoded_per_minute'] / ours['tokens_encoded_per_minute']
            add(f'{name}: visual tokens a minute, (a) over (e)', 'at least 5', f'{fewer:.1f}', fewer >= 5)
            add(f'{name}: the same if (a) encoded each frame once', '-',
                f'{fewer / min(footage["frames"], footage["images"]):.1f}', True)
            add(f'{name}: caption F1, (e) less (a)', 'at least -0.010', f'{ours["f1"] - whole["f1"]:+.3f}',
                ours['f1'] >= whole['f1'] - 0.01)
            tick = whole['tick_ms_mean'] / ours['tick_ms_mean']
            add(f'{name}: wall time of a caption tick, (a) over (e)', 'at least 8', f'{tick:.1f}', tick >= 8)
            add(f'{name}: the same in CPU time of the process, and in multiply-adds', '-',
                f'{whole["tick_cpu_ms"] / ours["tick_cpu_ms"]:.1f}, {whole["tick_gmac"] / ours["tick_gmac"]:.1f}', True)
            frame = whole['frame_ms_mean'] / ours['frame_ms_mean']
            add(f'{name}: wall time of all frames, (a) over (e)', '-', f'{frame:.1f}', True)
        if 'c' in policies:
            published = policies['c']
            add(f'{name}: caption F1, (e) less (c)', 'above 0', f'{ours["f1"] - published["f1"]:+.3f}',
                ours['f1'] > published['f1'])
            add(f'{name}: changes missed, (e) and (c)', 'at most half',
                f'{ours["missed_share"]:.1%} and {published["missed_share"]:.1%}',
                ours['missed_share'] <= published['missed_share'] / 2)
        for key, what in (('same_text', 'where nothing was dropped'), ('same_text_all_kept', 'with every frame kept')):
            same = footage.get(key)
            if same:
                equal, count = (same['whole_equal'], same['whole']) if key == 'same_text' else (same['equal'], same['captions'])
                add(f'{name}: same text with and without caches, {what}', 'all', f'{equal} of {count}', equal == count)
    writing = result.get('writing')
    if writing and writing['all']['captions']:
        add('decode with drafts on the recording', 'at least 2 times faster', f'{writing["all"]["speedup"]:.2f}',
            writing['all']['speedup'] >= 2)
        add('text with drafts', 'that of greedy decoding', f'{writing["equal"]} of {writing["captions"]}',
            writing['equal'] == writing['captions'])
        add('a useless draft', 'at most 5 % slower', f'{writing["useless_draft_slower"]:+.1%}',
            writing['useless_draft_slower'] <= 0.05)
        if writing['unchanged']['captions']:
            accepted = writing['unchanged']['accepted_per_pass']
            add('accepted tokens a pass on unchanged scenes', 'at least 4', f'{accepted:.2f}', accepted >= 4)
    for title, one in result.get('ageing', {}).items():
        if one['minutes'] > 1:
            for what, key in (('wall time a frame', 'frame_ms'), ('CPU time a frame', 'cpu_ms'), ('memory', 'rss_mb')):
                grown = one[key][-1] / one[key][0] - 1
                add(f'{title}: {what}, minute {one["minutes"]} against minute 1', 'within 5 %', f'{grown:+.1%}', grown <= 0.05)
    return found


def plots(result: dict[str, Any], folder: Path) -> list[Path]:
    """Costs and quality side by side, and time by minute, as PNG."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    made = []
    for footage in result['footage']:
        figure, axes = pyplot.subplots(1, 4, figsize=(14, 3.4), layout='constrained')
        names = [f'({one["policy"]})' for one in footage['policies']]
        for axis, (key, title) in zip(axes, (
                ('tokens_encoded_per_minute', 'visual tokens encoded a minute'), ('tick_cpu_ms', 'CPU ms a caption tick'),
                ('f1', 'caption F1'), ('missed_share', 'share of changes missed'))):
            bars = axis.bar(names, [one[key] for one in footage['policies']], color=['0.6'] * (len(names) - 1) + ['tab:blue'])
            axis.bar_label(bars, fmt='%.3g', fontsize=8)
            axis.set_title(title, fontsize=10)
            axis.margins(y=0.12)
        figure.suptitle(footage['name'], fontsize=11)
        made.append(folder / f'{footage["short"]}.png')
        figure.savefig(made[-1], dpi=110)
        pyplot.close(figure)
    if result.get('steps'):
        made.append(folder / 'real_size.png')
        _plot_steps(result['steps'], made[-1])
    if result.get('ageing'):
        figure, (times, memory) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout='constrained')
        for title, one in result['ageing'].items():
            minutes = range(1, one['minutes'] + 1)
            times.plot(minutes, one['cpu_ms'], marker='o', label=title)
            memory.plot(minutes, one['rss_mb'], marker='o', label=title)
        for axis, title in ((times, 'CPU ms a frame, by minute'), (memory, 'process memory in MB, by minute')):
            axis.set_title(title, fontsize=10)
            axis.set_ylim(bottom=0)
            axis.legend(fontsize=8)
        made.append(folder / 'minutes.png')
        figure.savefig(made[-1], dpi=110)
        pyplot.close(figure)
    return made


def _plot_steps(found: dict[str, Any], path: Path) -> None:
    """Two points a step, not bars: a logarithmic axis has no zero to draw them from."""
    from matplotlib import pyplot

    steps = found['steps']
    figure, axis = pyplot.subplots(figsize=(9, 0.4 * len(steps) + 1.2), layout='constrained')
    for place, step in enumerate(steps):
        axis.plot([step['ours_ms'], step['plain_ms']], [place, place], color='0.8', zorder=0)
        axis.annotate(f'{step["plain_ms"] / step["ours_ms"]:.1f} x', (max(step['ours_ms'], step['plain_ms']), place),
                      xytext=(8, -3), textcoords='offset points', fontsize=8)
    for key, colour, title in (('plain_ms', '0.5', 'plain transformers'), ('ours_ms', 'tab:blue', 'ours')):
        axis.scatter([step[key] for step in steps], range(len(steps)), color=colour, label=title)
    axis.set_yticks(range(len(steps)), [step['name'].split(':')[0].split(' (')[0] for step in steps], fontsize=8)
    axis.invert_yaxis()
    axis.set_xscale('log')
    axis.margins(x=0.1)
    axis.set_xlabel('ms', fontsize=9)
    axis.set_title(f'2B shapes, {found["decoder_layers"]} of 28 layers, {found["dtype"]}, {found["device"]}', fontsize=10)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
