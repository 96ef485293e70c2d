"""Runs built engines with TensorRT on a GPU, above all on a Jetson Orin: what goes where in device memory, call by call.

Knows nothing of how engines are built (tensorrt_build.py), of TensorRT's own calls (tensorrt_context.py) or of CUDA's
(cuda.py). Keeps the contract of core/engine.py.

Append by address (reference/tensorrt.md 2.2): a cache is two buffers per layer that never move. A call reads their first P
rows as past and writes the new rows straight behind them. A frame's visual tokens are written by the vision engine into a
block of their own, with room in front for the words that announce the frame: the language engine reads words and tokens
from there as one piece. Only logits come back to the host, and only then does the host wait for the device.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorrt as trt

from penguin_ros.backends.checks import check_append, check_move, check_patches
from penguin_ros.backends.cuda import ALIGNMENT, the_gpu
from penguin_ros.backends.device_memory import Gpu, Inbox, Memory, Pool, aligned
from penguin_ros.backends.golden import run_case_on_engines
from penguin_ros.backends.inputs import fill_mask, map_embeddings, word_rows
from penguin_ros.backends.manifest import GraphEntry, Manifest, Profile, check_files, read_manifest
from penguin_ros.backends.ownership import check_ownership
from penguin_ros.backends.tensorrt_context import LoadedEngine, TensorRTLog, creation_flags, make_runtime
from penguin_ros.core.engine import KVCache, LanguageSpec, Piece, VisionSpec, VisualTokens
from penguin_ros.core.errors import EngineError, EngineMismatchError
from penguin_ros.core.rotary import decoder_tables, encoder_tables

WORD_ROWS = 32          # room in front of a frame's visual tokens; the words that announce one take up to 16
SAME_MODEL = 'Encode the frame with the vision engine of the same model and backend.'
FLOAT, INT = np.dtype(np.float32), np.dtype(np.int32)


class FrameRows:
    """Where one frame's visual tokens lie on the device; the memory is theirs as long as somebody holds this."""

    def __init__(self, pool: Pool, count: int, row_bytes: int) -> None:
        front_bytes = aligned(WORD_ROWS * row_bytes)
        self.memory = pool.memory
        self.count = count
        self.row_bytes = row_bytes
        self._block = pool.lend(front_bytes + count * row_bytes)
        self.address = self._block.address + front_bytes


class TensorRTCache:
    """Keys and values of one stream: buffers that never move. ``addresses``: keys and values of layer 0 first."""

    def __init__(self, pool: Pool, spec: LanguageSpec, dtype: np.dtype, capacity_rows: int) -> None:
        self.pool = pool
        self.capacity_rows = capacity_rows
        self.buffer_row_bytes = spec.kv_heads * spec.head_dim * dtype.itemsize
        self.row_bytes = 2 * spec.layers * self.buffer_row_bytes
        buffer_bytes = aligned(capacity_rows * self.buffer_row_bytes)
        self.block = pool.lend(2 * spec.layers * buffer_bytes)
        self.addresses = [self.block.address + number * buffer_bytes for number in range(2 * spec.layers)]


@dataclass(frozen=True)
class WordTable:
    """The embeddings of all token ids, [vocabulary, width], mapped: only the rows asked for are read."""

    table: np.ndarray
    dtype: np.dtype             # the rows are given in

    @property
    def width(self) -> int:
        return self.table.shape[1]

    @property
    def row_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    def rows(self, ids: np.ndarray) -> np.ndarray:
        return word_rows(self.table, ids, self.dtype)


class Workspace:
    """What both engines share: the GPU, its memory, and the rule that a call which fails leaves nothing half done."""

    def __init__(self, gpu: Gpu, said: TensorRTLog) -> None:
        self.gpu = gpu
        self.memory = Memory(gpu)
        self.pool = Pool(self.memory)
        self._engines: list[LoadedEngine] = []
        self._said = said       # must outlive everything made with it
        self._runtime: trt.Runtime | None = make_runtime(said)

    def load(self, path: Path, entry: GraphEntry, *, remedy: str) -> LoadedEngine:
        """Load an engine; it is let go of with everything else."""
        if self._runtime is None:
            raise EngineError('the engine was closed. Configure the node again.')
        self._engines.append(LoadedEngine(self._runtime, path, entry, said=self._said, remedy=remedy))
        return self._engines[-1]

    @contextmanager
    def call(self) -> Iterator[None]:
        """Have the GPU for one call."""
        with self.gpu.current():
            if self._runtime is None:
                raise EngineError('the engine was closed. Configure the node again.')
            try:
                yield
            except BaseException:
                self._settle()
                raise

    def _settle(self) -> None:
        """Let the device finish what a failed call had asked for, so that the next may write where it read."""
        try:
            self.gpu.synchronize()
        except EngineError as error:        # the first error is the one to tell
            logging.getLogger(__name__).error('after a failed call: %s', error)

    def close(self) -> None:
        """Give back engines and memory. Caches and visual tokens made so far are of no use afterwards."""
        with self.gpu.current():
            if self._runtime is None:
                return
            self._settle()
            while self._engines:
                self._engines.pop().close()
            self._runtime = None
            self.memory.close()


class TensorRTVisionEngine:
    """Keeps core.engine.VisionEngine."""

    def __init__(self, workspace: Workspace, engine: LoadedEngine, entry: GraphEntry, spec: VisionSpec) -> None:
        self.spec = spec
        self._workspace = workspace
        self._engine = engine
        self._dtype = _dtype_of(entry.outputs, 'visual')
        self._tables = lru_cache(maxsize=64)(self._make_tables)
        most, values = spec.max_patches, 3 * spec.patch_px**2
        self._inbox = Inbox(workspace.memory, Inbox.room_for(
            [((most, values), FLOAT), ((most, spec.head_dim), FLOAT), ((most, spec.head_dim), FLOAT)]))

    def encode(self, patches: np.ndarray, grid: tuple[int, int]) -> VisualTokens:
        check_patches(self.spec, patches, grid)
        count, row_bytes = len(patches) // self.spec.merge**2, self.spec.width * self._dtype.itemsize
        cos, sin = self._tables(grid)
        with self._workspace.call():
            frame = FrameRows(self._workspace.pool, count, row_bytes)
            with self._inbox.filling():
                addresses = {name: self._inbox.put(array.astype(FLOAT, copy=False))
                             for name, array in (('patches', patches), ('cos', cos), ('sin', sin))}
            self._engine.run(0, {'patches': patches.shape, 'cos': cos.shape, 'sin': sin.shape},
                             {**addresses, 'visual': frame.address}, self._workspace.gpu.stream)
        return VisualTokens(count, frame)

    def read_back(self, tokens: VisualTokens) -> np.ndarray:
        """A frame's visual tokens as float32 [count, width] on the host; for tests and verification."""
        frame, gpu = _frame(tokens), self._workspace.gpu
        with self._workspace.call():
            host = gpu.host_array(frame.count * frame.row_bytes)
            gpu.download(host, frame.address)
            gpu.synchronize()
            rows = host.view(self._dtype).reshape(frame.count, self.spec.width).astype(np.float32)
            gpu.free_host(host)
        return rows

    def close(self) -> None:
        self._workspace.close()

    def _make_tables(self, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return encoder_tables(grid, merge=self.spec.merge, head_dim=self.spec.head_dim, theta=self.spec.rope_theta)


class TensorRTLanguageEngine:
    """Keeps core.engine.LanguageEngine."""

    def __init__(self, workspace: Workspace, engine: LoadedEngine, entry: GraphEntry, spec: LanguageSpec,
                 embeddings: np.ndarray, *, cache_rows: int) -> None:
        self.spec = spec
        self._workspace = workspace
        self._engine = engine
        self._profiles = entry.profiles
        self._dtype = _dtype_of(entry.inputs, 'embeddings')
        self._words = WordTable(embeddings, self._dtype)
        self._cache_rows = cache_rows
        self._ports = [f'{kind}_{layer}' for layer in range(spec.layers) for kind in ('k', 'v')]
        self._most_logits = max(profile.dims['R'][2] for profile in entry.profiles)

        memory, rows = workspace.memory, spec.max_append
        self._inbox = Inbox(memory, Inbox.room_for(
            [((rows, spec.width), self._dtype), ((WORD_ROWS, spec.width), self._dtype), ((rows, spec.head_dim), FLOAT),
             ((rows, spec.head_dim), FLOAT), ((rows, cache_rows), FLOAT), ((self._most_logits,), INT)]))
        logits_bytes = self._most_logits * spec.vocabulary * FLOAT.itemsize
        self._logits = memory.alloc(logits_bytes)
        self._host_logits = memory.host_array(logits_bytes).view(FLOAT).reshape(self._most_logits, spec.vocabulary)
        # Rows of small models are no multiple of ALIGNMENT: TensorRT cannot write those in place, so they land here first.
        cache_row_bytes = spec.kv_heads * spec.head_dim * self._dtype.itemsize
        self._landing_bytes = aligned(rows * cache_row_bytes) if cache_row_bytes % ALIGNMENT else 0
        self._landing = memory.alloc(len(self._ports) * self._landing_bytes) if self._landing_bytes else 0

    def new_cache(self, capacity_rows: int) -> TensorRTCache:
        if not 2 <= capacity_rows <= self._cache_rows:
            raise EngineError(f'a cache of {capacity_rows} rows was asked for; row 0 is reserved, so 2 is the least, and this '
                              f'engine was built for {self._cache_rows} at most. Ask for fewer, or raise cache_rows in the '
                              'recipe and build again.')
        with self._workspace.call():
            cache = TensorRTCache(self._workspace.pool, self.spec, self._dtype, capacity_rows)
            self._workspace.gpu.zero(cache.block.address, cache.block.nbytes)
        return cache

    def append(self, cache: KVCache, pieces: Sequence[Piece], *, start: int, positions: np.ndarray, visible: np.ndarray,
               logits_for: Sequence[int]) -> np.ndarray:
        cache = self._own(cache)
        count = check_append(self.spec, cache, pieces, start=start, positions=positions, visible=visible,
                             logits_for=logits_for)
        for piece in pieces:
            self._check_visual(piece)
        wanted = np.asarray(logits_for, np.int64)
        logits = np.empty((len(wanted), self.spec.vocabulary), np.float32)
        with self._workspace.call():
            prompt = self._prompt(pieces)
            for first, last in calls_for(count, wanted, most_rows=self.spec.max_append, most_logits=self._most_logits):
                here = np.flatnonzero((wanted >= first) & (wanted < last))
                rows, places = np.unique(wanted[here] - first, return_inverse=True)
                self._append_rows(cache, prompt, first, last, np.asarray(positions)[first:last], rows,
                                  past_rows=start + first, visible=visible)
                if len(here):
                    found = self._read_logits(len(rows))
                    for target, place in zip(here, places.reshape(-1)):     # row by row: no third copy of megabytes
                        logits[target] = found[place]
        return logits

    def move_rows(self, cache: KVCache, *, source: int, target: int, count: int) -> None:
        cache = self._own(cache)
        check_move(cache, source=source, target=target, count=count)
        row_bytes = cache.buffer_row_bytes
        # Where the two places overlap, the rows make a stop in the inbox, from the lowest up.
        overlap = source - target < count
        most = self._inbox.nbytes // row_bytes if overlap else count
        if source == target or not count:
            return
        with self._workspace.call():
            for base in cache.addresses:
                for row in range(0, count, most):
                    nbytes = min(most, count - row) * row_bytes
                    begin, end = base + (source + row) * row_bytes, base + (target + row) * row_bytes
                    if overlap:
                        self._workspace.gpu.copy(self._inbox.address, begin, nbytes)
                        begin = self._inbox.address
                    self._workspace.gpu.copy(end, begin, nbytes)

    def close(self) -> None:
        self._workspace.close()

    def _own(self, cache: KVCache) -> TensorRTCache:
        if not isinstance(cache, TensorRTCache) or cache.pool is not self._workspace.pool:
            raise EngineError(f"the cache is a {type(cache).__name__}, made by another engine. Use this engine's new_cache.")
        return cache

    def _check_visual(self, piece: Piece) -> None:
        if isinstance(piece, VisualTokens):
            frame = _frame(piece)
            here = frame.memory.gpu is self._workspace.gpu and not frame.memory.closed
            if not here or (frame.count, frame.row_bytes) != (piece.count, self._words.row_bytes):
                raise EngineError(f'visual tokens hold {frame.count} rows of {frame.row_bytes} bytes; {piece.count} of '
                                  f'{self._words.row_bytes} on this device were needed. {SAME_MODEL}')

    def _prompt(self, pieces: Sequence[Piece]) -> Prompt:
        """How the rows get to where one call can read them."""
        ids = [piece for piece in pieces[:-1] if not isinstance(piece, VisualTokens)]
        last = pieces[-1] if pieces else None
        if (isinstance(last, VisualTokens) and len(ids) == len(pieces) - 1 and sum(map(len, ids)) <= WORD_ROWS
                and self._words.row_bytes % ALIGNMENT == 0):
            return _FramePrompt(self._words, np.concatenate([np.empty(0, np.int64), *ids]), _frame(last))
        return _MixedPrompt(self._words, pieces)

    def _append_rows(self, cache: TensorRTCache, prompt: Prompt, first: int, last: int,
                     positions: np.ndarray, logit_rows: np.ndarray, *, past_rows: int, visible: np.ndarray) -> None:
        """One engine call, for rows ``first`` to ``last`` of the prompt."""
        spec, gpu, count = self.spec, self._workspace.gpu, last - first
        if not len(logit_rows):
            logit_rows = np.array([count - 1])      # no tensor is ever empty; these logits stay on the device
        cos, sin = decoder_tables(positions, head_dim=spec.head_dim, theta=spec.rope_theta)
        addresses = {}
        with self._inbox.filling():
            addresses['embeddings'], copies = prompt.place(self._inbox, first, last)
            addresses['cos'], addresses['sin'] = self._inbox.put(cos), self._inbox.put(sin)
            addresses['logit_rows'] = self._inbox.put(logit_rows.astype(INT))
            mask, addresses['mask'] = self._inbox.place((count, past_rows + count), FLOAT)
            fill_mask(mask, visible, past_rows)
        for target, source, nbytes in copies:
            gpu.copy(target, source, nbytes)
        shapes: dict[str, tuple[int, ...]] = {
            'embeddings': (count, spec.width), 'cos': cos.shape, 'sin': sin.shape, 'mask': mask.shape,
            'logit_rows': logit_rows.shape}
        addresses['logits'] = self._logits
        past_shape = past_rows, spec.kv_heads, spec.head_dim
        behind_bytes, new_bytes = past_rows * cache.buffer_row_bytes, count * cache.buffer_row_bytes
        landed = []
        for number, (port, base) in enumerate(zip(self._ports, cache.addresses)):
            shapes[f'past_{port}'], addresses[f'past_{port}'] = past_shape, base
            addresses[f'new_{port}'] = base + behind_bytes
            if self._landing:
                addresses[f'new_{port}'] = self._landing + number * self._landing_bytes
                landed.append((base + behind_bytes, addresses[f'new_{port}'], new_bytes))
        self._engine.run(self._profile_for(count, len(logit_rows)), shapes, addresses, gpu.stream)
        for target, source, nbytes in landed:
            gpu.copy(target, source, nbytes)

    def _profile_for(self, rows: int, logit_rows: int) -> int:
        """The tightest profile that takes a call; they are in this order."""
        return next(number for number, profile in enumerate(self._profiles)
                    if _takes(profile, 'T', rows) and _takes(profile, 'R', logit_rows))

    def _read_logits(self, count: int) -> np.ndarray:
        """The first rows of the last run's logits, valid until the next; here the host waits for the device."""
        gpu, host = self._workspace.gpu, self._host_logits[:count]
        gpu.download(host, self._logits)
        gpu.synchronize()
        return host


Copies = list[tuple[int, int, int]]     # on the device: target, source, bytes


class Prompt(Protocol):
    """The rows of one append."""

    def place(self, inbox: Inbox, first: int, last: int) -> tuple[int, Copies]:
        """Have rows ``first`` to ``last`` in one piece; returns their address and what to copy behind the inbox's sending."""
        ...


@dataclass(frozen=True)
class _FramePrompt:
    """Some words and one frame, read from the frame's own block: only the words travel."""

    words: WordTable
    ids: np.ndarray
    frame: FrameRows

    def place(self, inbox: Inbox, first: int, last: int) -> tuple[int, Copies]:
        row_bytes = self.words.row_bytes
        begin = self.frame.address - len(self.ids) * row_bytes
        copies = []
        if first == 0 and len(self.ids):
            copies = [(begin, inbox.put(self.words.rows(self.ids.astype(np.int64))), len(self.ids) * row_bytes)]
        return begin + first * row_bytes, copies


@dataclass(frozen=True)
class _MixedPrompt:
    """Any pieces: words travel, visual tokens are copied between them on the device."""

    words: WordTable
    pieces: Sequence[Piece]

    def place(self, inbox: Inbox, first: int, last: int) -> tuple[int, Copies]:
        row_bytes = self.words.row_bytes
        rows, address = inbox.place((last - first, self.words.width), self.words.dtype)
        copies = []
        begin = 0
        for piece in self.pieces:
            end = begin + (piece.count if isinstance(piece, VisualTokens) else len(piece))
            low, high = max(begin, first), min(end, last)
            if low < high and isinstance(piece, VisualTokens):
                copies.append((address + (low - first) * row_bytes, piece.data.address + (low - begin) * row_bytes,
                               (high - low) * row_bytes))
            elif low < high:
                assert not isinstance(piece, VisualTokens)
                rows[low - first:high - first] = self.words.rows(piece[low - begin:high - begin])
            begin = end
        return address, copies


def calls_for(count: int, wanted: np.ndarray, *, most_rows: int, most_logits: int) -> Iterator[tuple[int, int]]:
    """Cut ``count`` rows into engine calls, first and last row, each with as many rows and wanted logits as one call takes."""
    rows = np.unique(wanted)
    first = 0
    while first < count:
        last = min(first + most_rows, count)
        here = rows[(rows >= first) & (rows < last)]
        if len(here) > most_logits:
            last = int(here[most_logits])
        yield first, last
        first = last


def load_tensorrt_engines(folder: str | Path, *, gpu: Gpu | None = None,
                          log: logging.Logger | None = None) -> tuple[TensorRTVisionEngine, TensorRTLanguageEngine]:
    """Check a folder of built engines, and that they were built on this machine, then load both. Closing either frees both.

    Nothing is deserialised before every file was found to be the one that was built, written by nobody else.
    """
    folder, log = Path(folder), log or logging.getLogger(__name__)
    creation_flags()
    manifest = read_manifest(folder, backend='tensorrt')
    check_ownership(folder, ['manifest.json', *manifest.files])
    check_files(folder, manifest)
    gpu = gpu or the_gpu()
    _check_machine(folder, manifest, gpu)
    with gpu.current():
        workspace = Workspace(gpu, TensorRTLog(log))
        try:
            return _load(folder, manifest, workspace)
        except BaseException:
            workspace.close()
            raise


def _load(folder: Path, manifest: Manifest, workspace: Workspace) -> tuple[TensorRTVisionEngine, TensorRTLanguageEngine]:
    vision, language = (workspace.load(folder / entry.file, entry, remedy=manifest.remedy)
                        for entry in (manifest.vision, manifest.language))
    return (TensorRTVisionEngine(workspace, vision, manifest.vision, manifest.vision_spec),
            TensorRTLanguageEngine(workspace, language, manifest.language, manifest.language_spec,
                                   map_embeddings(folder, manifest.embeddings), cache_rows=manifest.ranges['S'][1]))


def machine_details(gpu: Gpu) -> dict[str, str]:
    """What an engine depends on besides its own ingredients; an engine built elsewhere must not be loaded here."""
    return {'tensorrt': trt.__version__, 'cuda_driver': gpu.driver_version, 'gpu': gpu.name,
            'compute_capability': gpu.compute_capability, 'multiprocessors': str(gpu.multiprocessors)}


def _check_machine(folder: Path, manifest: Manifest, gpu: Gpu) -> None:
    here = machine_details(gpu)
    other = [f'{name} {manifest.details.get(name, "unknown")} (here {found})' for name, found in here.items()
             if manifest.details.get(name) != found]
    if other:
        raise EngineMismatchError(f'{folder} was built for {", ".join(other)}. An engine runs only on the kind of machine it '
                                  f'was built on. {manifest.remedy}')


def run_golden_case(vision_for: Callable[[int], TensorRTVisionEngine], language: TensorRTLanguageEngine,
                    arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the engines give out of a golden case (golden.py): projector, logits, greedy continuation."""
    def read_back(tokens: VisualTokens) -> np.ndarray:
        return vision_for(int(arrays['merge_sizes'][0])).read_back(tokens)

    return run_case_on_engines(vision_for, language, arrays, row_of_tokens=read_back,
                               greedy_steps=len(arrays.get('greedy_tokens', ())))


def _dtype_of(ports: Sequence[Any], name: str) -> np.dtype:
    return np.dtype(next(port.dtype for port in ports if port.name == name))


def _takes(profile: Profile, dim: str, size: int) -> bool:
    least, _, most = profile.dims[dim]
    return least <= size <= most



def _frame(tokens: VisualTokens) -> FrameRows:
    if not isinstance(tokens.data, FrameRows):
        raise EngineError(f'visual tokens hold a {type(tokens.data).__name__}, not rows on the device. {SAME_MODEL}')
    return tokens.data
