"""One benchmark from its settings to its report: which parts are measured, in which order. Knows no policy's inside.

Parts not measured now are kept from the last report in the same folder, where its settings were the same; so parts may
be measured at the same time by several processes. A report with other settings is kept as result.before.json.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from penguin_ros.assemble import engine_folder, load_engines
from penguin_ros.bench import report
from penguin_ros.bench.footage import Footage, driven_footage, recorded_footage
from penguin_ros.bench.forgetting import measure_forgetting
from penguin_ros.bench.ladder import ageing, figures, run_policy, same_text
from penguin_ros.bench.policies import Bench
from penguin_ros.bench.writing import measure_writing
from penguin_ros.core.config import PenguinConfig
from penguin_ros.core.errors import PenguinError
from penguin_ros.model.config import config_from_folder

PARTS = ('recording', 'drive', 'drafts', 'forgetting', 'ageing')
REAL_SIZE_PARTS = ('steps', 'ladder')
CLIPS = 160                     # of the test split, for questions about the past
KEPT_SECONDS, KEPT_FRAMES, KEPT_TOKENS = 12.0, 60, 2400     # a stretch short enough that nothing need be dropped

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What decides the figures."""

    engine: str = 'nano'
    recording: str = ''             # '': the shipped one
    minutes: float = 10.0           # of the drive
    ladder_minutes: float = 10.0    # of it that every policy sees; ours sees all of it for the minute-by-minute figures
    rate_hz: float = 1.0            # of each of its cameras
    policies: str = 'abcde'
    frames: int = 0                 # of a camera's window; 0: the node's default
    window_tokens: int = 0          # per camera; 0: the node's default
    every: int = 3
    threads: int = 1


class Session:
    """Measures the parts and writes the report."""

    def __init__(self, settings: BenchSettings, out: Path, cache: Path, progress: Progress) -> None:
        self.settings = settings
        self._cache = cache
        self._progress = progress
        self._folder = out / 'benchmarks'
        self._report = out / 'benchmarks.md'
        plain = PenguinConfig(engine=settings.engine, threads=settings.threads)
        self._config = replace(
            plain, window=replace(plain.window, frames=settings.frames or plain.window.frames),
            token_budget=replace(plain.token_budget, window_tokens=settings.window_tokens or plain.token_budget.window_tokens))
        self._engines = load_engines(self._config, logging.getLogger('penguin.bench'))
        self._model = config_from_folder(engine_folder(settings.engine))
        self._machine = _machine()

    def measure(self, parts: Sequence[str], *, command: str) -> dict[str, Any]:
        """Measure some of PARTS and write report, figures and plots."""
        found: dict[str, Any] = {}
        if 'recording' in parts:
            found['recording'] = self._ladder(self._recording(), 'recording', self._all_kept())
        if 'drive' in parts and self.settings.minutes:
            found['drive'] = self._ladder(self._drive().first(60 * self.settings.ladder_minutes), 'drive', {})
        if 'drafts' in parts:
            found['writing'] = measure_writing(self._engines, self._recording(), self._progress)
        if 'forgetting' in parts:
            found['forgetting'] = measure_forgetting(self._engines, CLIPS, self._progress)
        if 'ageing' in parts and self.settings.minutes:
            found['ageing'] = self._ageing()
        return self._write(found, command)

    def measure_real_size(self, parts: Sequence[str], *, layers: int, threads: int, new_tokens: int, repeats: int,
                          command: str) -> dict[str, Any]:
        """Some of REAL_SIZE_PARTS at the 2B shapes; ``repeats`` 0: as many as the device is fast enough for."""
        from penguin_ros.bench.real_size import measure_real_size, random_model
        from penguin_ros.bench.steps import measure_steps

        self._progress('real size: making the model', 0, 1)
        model = random_model(layers=layers, threads=threads)
        found: dict[str, Any] = {}
        if 'steps' in parts:
            repeats = repeats or (20 if model.decoder.norm.weight.is_cuda else 3)
            found['steps'] = {**measure_steps(model, self._engines.words, repeats=repeats, progress=self._progress),
                              'machine': _machine(), 'command': command}
        if 'ladder' in parts:
            found['real_size'] = measure_real_size(self._engines, model, self._recording(), self._config, new_tokens=new_tokens,
                                                   progress=self._progress)
        return self._write(found, command)

    def _write(self, found: dict[str, Any], command: str) -> dict[str, Any]:
        """Join with the last report; write report, figures and plots."""
        result = self._last_result()
        ladders = {one['short']: one for one in result['footage']} | {
            short: found.pop(short) for short in ('recording', 'drive') if short in found}
        result |= {**found, 'footage': [ladders[short] for short in ('recording', 'drive') if short in ladders],
                   'commands': [*(one for one in result.get('commands', []) if one != command), command]}
        result['verdicts'] = report.verdicts(result)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / 'result.json').write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
        pictures = report.plots(result, self._folder)
        notes = self._folder / 'notes.md'
        self._report.write_text(
            report.markdown(result, [str(path.relative_to(self._report.parent)) for path in pictures],
                            notes.read_text(encoding='utf-8') if notes.exists() else ''), encoding='utf-8')
        return result

    # -- parts ---------------------------------------------------------------------------------------------------

    def _ladder(self, footage: Footage, short: str, extra: dict[str, Any]) -> dict[str, Any]:
        bench = self._bench(footage)
        runs = {name: run_policy(name, bench, footage, self._progress) for name in self.settings.policies}
        found = [figures(run, footage) for run in runs.values()]
        ladder = {'name': footage.name, 'short': short, 'images': len(footage.shots), 'seconds': footage.seconds,
                  'cameras': len(footage.cameras), 'rate_hz': round(footage.rate_hz, 2), 'frames': self._config.window.frames,
                  'changes': found[0]['changes'] if found else 0, 'policies': found, **extra}
        if {'d', 'e'} <= runs.keys():
            ladder['same_text'] = same_text(runs['d'], runs['e'])
        return ladder

    def _all_kept(self) -> dict[str, Any]:
        """Texts with and without caches where the budget lets every frame stay."""
        if not {'d', 'e'} <= set(self.settings.policies):
            return {}
        footage = self._recording().first(KEPT_SECONDS)
        roomy = replace(self._config, window=replace(self._config.window, frames=KEPT_FRAMES),
                        token_budget=replace(self._config.token_budget, window_tokens=KEPT_TOKENS))
        bench = replace(self._bench(footage), config=roomy)
        runs = [run_policy(name, bench, footage, self._progress) for name in 'de']
        return {'same_text_all_kept': {**same_text(*runs), 'all_kept': all(said.whole for said in runs[1].said)}}

    def _ageing(self) -> dict[str, Any]:
        drive = self._drive()
        per_minute = round(60 * self.settings.rate_hz) * len(drive.cameras)
        turns = max(2, round(self.settings.minutes))
        minute = drive.first(60.0)
        return {
            'the drive': ageing('e', self._bench(drive), drive.shots, len(drive.shots), per_minute, 'the whole drive',
                                self._progress),
            f'its first minute {turns} times over': ageing(
                'e', self._bench(drive), minute.repeated(turns), len(minute.shots) * turns, len(minute.shots),
                'one minute again and again', self._progress)}

    # -- what they need ------------------------------------------------------------------------------------------

    def _recording(self) -> Footage:
        from penguin_ros.shipped import shipped

        return recorded_footage(Path(self.settings.recording) if self.settings.recording
                                else shipped('recordings/warehouse.mcap'))

    def _drive(self) -> Footage:
        return driven_footage(self._cache, minutes=self.settings.minutes, rate_hz=self.settings.rate_hz,
                              progress=lambda done, total: self._progress('rendering the drive', done, total))

    def _bench(self, footage: Footage) -> Bench:
        """All cameras share one budget, so it grows with their number."""
        budget = self._config.token_budget
        config = replace(self._config, cameras=footage.cameras, token_budget=replace(
            budget, window_tokens=budget.window_tokens * len(footage.cameras)))
        return Bench(engines=self._engines, model=self._model, config=config, cameras=footage.cameras,
                     every=self.settings.every)

    def _last_result(self) -> dict[str, Any]:
        fresh = {'settings': {**asdict(self.settings), 'frames': self._config.window.frames,
                              'window_tokens': self._config.token_budget.window_tokens},
                 'model': self._engines.model_name, 'engine': self._engines.engine_id, 'machine': self._machine, 'footage': []}
        try:
            last = json.loads((self._folder / 'result.json').read_text(encoding='utf-8'))
        except FileNotFoundError:
            return fresh
        except (OSError, ValueError) as error:
            raise PenguinError(f'{self._folder / "result.json"} cannot be read ({error}). Remove it or name another --out.') \
                from error
        same = all(last.get(key) == fresh[key] for key in ('settings', 'engine'))
        if same:
            return dict(last)
        (self._folder / 'result.before.json').write_text(json.dumps(last, indent=1) + '\n', encoding='utf-8')
        # Random weights of another shape: what they cost does not depend on the engine the rest was measured with.
        return {**fresh, **{key: last[key] for key in ('real_size', 'steps') if key in last}}


def _machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import numpy
    import onnxruntime

    processor = platform.processor() or platform.machine()
    try:
        listed = Path('/proc/cpuinfo').read_text().splitlines()
        processor = next((line.split(':', 1)[1].strip() for line in listed if line.startswith('model name')), processor)
        memory_gb = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9
    except (OSError, ValueError):
        memory_gb = 0.0
    return {'processor': processor, 'cores': os.cpu_count() or 1, 'memory_gb': memory_gb,
            'software': f'Python {sys.version.split()[0]}, numpy {numpy.__version__}, ONNX Runtime {onnxruntime.__version__}',
            'load': os.getloadavg()[0] if hasattr(os, 'getloadavg') else 0.0}
