"""Run policies over footage, image by image, and measure. Knows nothing of how policies choose or of reports."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penguin_ros.bench.counting import Work
from penguin_ros.bench.footage import Footage, Shot
from penguin_ros.bench.policies import POLICIES, Bench, Policy, Said
from penguin_ros.bench.scoring import Changes, Moment, caption_scores, told_changes
from penguin_ros.core.frame import Frame

Progress = Callable[[str, int, int], None]


@dataclass
class Run:
    """One policy over one footage, image by image."""

    policy: str
    moments: dict[str, list[Moment]]
    look_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)   # of this process: what other processes take does not count
    works: list[Work] = field(default_factory=list)     # of each look
    memory: dict[str, float] = field(default_factory=dict)

    @property
    def said(self) -> list[Said]:
        """In the order of the looks, camera by camera."""
        return [moment.said for moments in self.moments.values() for moment in moments]


def run_policy(name: str, bench: Bench, footage: Footage, progress: Progress) -> Run:
    """Show a policy all images. Images are decoded before the clock starts."""
    policy = POLICIES[name][1](bench)
    run = Run(name, {camera: [] for camera in footage.cameras})
    for done, shot in enumerate(footage.shots):
        progress(f'{footage.name}, policy {name}', done, len(footage.shots))
        _look(policy, shot, run)
    progress(f'{footage.name}, policy {name}', len(footage.shots), len(footage.shots))
    run.memory['rss_mb'] = rss_mb()
    return run


def _look(policy: Policy, shot: Shot, run: Run) -> None:
    pixels = shot.pixels()
    before = policy.work.copy()
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    said = policy.look(Frame(pixels, shot.stamp_ns, shot.camera, shot.camera, time.monotonic()))
    run.look_ms.append((time.perf_counter() - begun_s) * 1e3)
    run.cpu_ms.append((time.process_time() - cpu_s) * 1e3)
    run.works.append(policy.work - before)
    for what, value in policy.memory().items():
        run.memory[what] = max(run.memory.get(what, 0.0), value)
    run.moments[shot.camera].append(Moment(shot.stamp_ns, shot.truth, said, *pixels.shape[:2]))


def figures(run: Run, footage: Footage) -> dict[str, Any]:
    """Everything the report says of a run."""
    minutes = footage.seconds / 60
    ticks = _ticks(run)
    total = sum_of(run.works)
    changes = [told_changes(moments) for moments in run.moments.values()]
    all_changes = Changes(sum(one.total for one in changes), sum(one.missed for one in changes),
                          [delay_s for one in changes for delay_s in one.delays_s or ()])
    moments = [moment for some in run.moments.values() for moment in some]
    return {
        'policy': run.policy, 'images': len(run.look_ms), 'captions': sum(ticks),
        'tokens_encoded_per_minute': total.tokens_encoded / minutes, 'tokens_read_per_minute': total.tokens_read / minutes,
        'rows_read_per_minute': total.rows_read / minutes,
        'encoder_gmac_per_frame': total.encoder_macs / len(run.works) / 1e9,
        'decoder_gmac_per_frame': total.decoder_macs / len(run.works) / 1e9,
        'frame_ms_mean': float(np.mean(run.look_ms)), 'frame_ms_p95': float(np.percentile(run.look_ms, 95)),
        'tick_ms_mean': float(np.mean([ms for ms, tick in zip(run.look_ms, ticks) if tick])),
        'tick_cpu_ms': float(np.mean([ms for ms, tick in zip(run.cpu_ms, ticks) if tick])),
        'frame_cpu_ms': float(np.mean(run.cpu_ms)),
        'tick_gmac': sum(work.encoder_macs + work.decoder_macs for work, tick in zip(run.works, ticks) if tick)
        / max(1, sum(ticks)) / 1e9,
        **caption_scores(moments), 'changes': all_changes.total, 'missed_share': all_changes.missed_share,
        'delay_s': all_changes.mean_delay_s, **run.memory, 'work': asdict(total)}


def _ticks(run: Run) -> list[bool]:
    """Which looks wrote a caption, in the order of the looks."""
    by_camera = {camera: iter(moments) for camera, moments in run.moments.items()}
    cameras = list(by_camera)
    return [next(by_camera[cameras[number % len(cameras)]]).said.is_new for number in range(len(run.look_ms))]


def sum_of(works: Iterable[Work]) -> Work:
    total = Work()
    for work in works:
        for name, value in vars(work).items():
            setattr(total, name, getattr(total, name) + value)
    return total


def same_text(one: Run, other: Run) -> dict[str, int]:
    """How many captions of two runs are equal, in all and where nothing had been dropped or thinned yet."""
    pairs = [(a, b) for a, b in zip(one.said, other.said) if a.is_new and b.is_new]
    whole = [(a, b) for a, b in pairs if b.whole]
    return {'captions': len(pairs), 'equal': sum(_equal(a, b) for a, b in pairs),
            'whole': len(whole), 'whole_equal': sum(_equal(a, b) for a, b in whole)}


def _equal(one: Said, other: Said) -> bool:
    return one.caption == other.caption and [p.region for p in one.phrases] == [p.region for p in other.phrases]


def ageing(name: str, bench: Bench, shots: Iterable[Shot], count: int, per_minute: int, label: str,
           progress: Progress) -> dict[str, Any]:
    """Time and memory of the first minute and of the last, over a long run; process memory is read after a collection."""
    policy = POLICIES[name][1](bench)
    run = Run(name, {camera: [] for camera in bench.cameras})
    rss: list[float] = []
    for done, shot in enumerate(shots):
        progress(label, done, count)
        _look(policy, shot, run)
        for moments in run.moments.values():
            del moments[:-1]                    # the measuring itself must not grow
        if (done + 1) % per_minute == 0:
            gc.collect()
            rss.append(rss_mb())
    progress(label, count, count)
    minutes = [slice(minute * per_minute, (minute + 1) * per_minute) for minute in range(len(rss))]     # whole ones
    frame_ms = [float(np.mean(run.look_ms[minute])) for minute in minutes]
    gmac = [sum(work.encoder_macs + work.decoder_macs for work in run.works[minute]) / per_minute / 1e9 for minute in minutes]
    cpu_ms = [float(np.mean(run.cpu_ms[minute])) for minute in minutes]
    return {'minutes': len(minutes), 'frame_ms': frame_ms, 'cpu_ms': cpu_ms, 'gmac_per_frame': gmac, 'rss_mb': rss}


def rss_mb() -> float:
    """Memory of this process now (Linux), else the most it had."""
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (1e6 if sys.platform == 'darwin' else 1e3)
    return pages * resource.getpagesize() / 1e6
