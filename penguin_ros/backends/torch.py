"""Run Penguin-VL's engines in PyTorch, on a CPU or any CUDA GPU: the reference that other backends are measured against.

Keeps the contract of core/engine.py. Knows nothing of prompts, windows or cameras.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from penguin_ros.backends.checks import check_append, check_move, check_patches
from penguin_ros.backends.golden import run_case_on_engines
from penguin_ros.backends.torch_graphs import CudaRecorder, RecordedAppend, Recorder, rows_looked_at
from penguin_ros.core.decode import VERIFY_TOKENS
from penguin_ros.core.engine import KVCache, LanguageSpec, Piece, VisionSpec, VisualTokens
from penguin_ros.core.errors import EngineError
from penguin_ros.model.checkpoint import load_model
from penguin_ros.model.definition import LayerCache, PenguinVL

DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}


def load_torch_engines(folder: str | Path, *, device: str = 'cpu', dtype: str = 'float32', merge: int = 2,
                       max_patches: int = 16384, max_append: int = 512) -> tuple[TorchVisionEngine, TorchLanguageEngine]:
    """Both engines of the checkpoint in ``folder``, sharing one copy of its weights.

    ``merge`` is how many patches a side one visual token covers: 2 for video frames, 1 for single pictures. ``device`` auto
    is a CUDA GPU where there is one.
    """
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if dtype not in DTYPES:
        raise EngineError(f'dtype is {dtype!r}; one of {", ".join(DTYPES)} was needed. Change the recipe.')
    if device != 'cpu' and not (device.split(':')[0] == 'cuda' and torch.cuda.is_available()):
        raise EngineError(f'device {device!r} was asked for; this machine and this torch {torch.__version__} have no such '
                          'device. Use device auto or cpu, or install a torch built for the GPU.')
    with _engine_errors(f'loading {folder}'):
        model = load_model(folder, dtype=DTYPES[dtype], device=device)
    return TorchVisionEngine(model, merge=merge, max_patches=max_patches), TorchLanguageEngine(model, max_append=max_append)


class TorchVisionEngine:
    """Encoder, merge and projector of a model, one frame per call."""

    def __init__(self, model: PenguinVL, *, merge: int = 2, max_patches: int = 16384) -> None:
        encoder = model.config.encoder
        self._model = model
        self.spec = VisionSpec(patch_px=encoder.patch_px, merge=merge, head_dim=encoder.head_dim,
                               rope_theta=encoder.rope_theta, width=model.config.decoder.width, max_patches=max_patches)

    def encode(self, patches: np.ndarray, grid: tuple[int, int]) -> VisualTokens:
        check_patches(self.spec, patches, grid)
        weight = self._model.encoder.norm.weight
        with _engine_errors('encoding a frame'):
            frames = torch.tensor(patches[None], device=weight.device, dtype=weight.dtype)
            tokens = self._model.encode_frames(frames, grid, self.spec.merge)[0]
        return VisualTokens(len(tokens), tokens)


class TorchCache:
    """Keys and values of one stream, reserved once; row 0 stays zero.

    Recorded appends belong to the cache, since they hold its addresses. They write rows they do not need to one row more
    than the cache has, which nobody looks at.
    """

    def __init__(self, capacity_rows: int, spec: LanguageSpec, like: Tensor) -> None:
        self.capacity_rows = capacity_rows
        shape = (capacity_rows + 1, spec.kv_heads, spec.head_dim)
        self.layers: list[LayerCache] = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(spec.layers)]
        self.recorded: dict[tuple[int, int], RecordedAppend] = {}

    @property
    def row_bytes(self) -> int:
        return sum(buffer[0].nbytes for layer in self.layers for buffer in layer)

    def addresses(self) -> list[int]:
        """Where the buffers lie; they never move."""
        return [buffer.data_ptr() for layer in self.layers for buffer in layer]


class TorchLanguageEngine:
    """The decoder of a model, append by address.

    On a CUDA GPU, appends of words up to a draft's length are recorded as graphs (torch_graphs.py); ``recorder`` is how, and
    None elsewhere.
    """

    def __init__(self, model: PenguinVL, *, max_append: int = 512, recorder: Recorder | None = None) -> None:
        config, decoder = model.config, model.config.decoder
        self._decoder = model.decoder
        self._like = model.decoder.norm.weight.detach()  # has the device and type of everything here
        self._recorder = CudaRecorder(self._like.device) if recorder is None and self._like.is_cuda else recorder
        self.spec = LanguageSpec(
            layers=decoder.layers, kv_heads=decoder.kv_heads, head_dim=decoder.head_dim, width=decoder.width,
            vocabulary=decoder.vocabulary, rope_theta=decoder.rope_theta, max_positions=decoder.max_positions,
            max_append=max_append, image_token_id=config.image_token_id)

    def new_cache(self, capacity_rows: int) -> TorchCache:
        if capacity_rows < 2:
            raise EngineError(f'a cache of {capacity_rows} rows was asked for; row 0 is reserved, so 2 is the least. '
                              'Ask for one row more than there are tokens.')
        with _engine_errors(f'reserving a cache of {capacity_rows} rows'):
            return TorchCache(capacity_rows, self.spec, self._like)

    def append(self, cache: KVCache, pieces: Sequence[Piece], *, start: int, positions: np.ndarray,
               visible: np.ndarray, logits_for: Sequence[int]) -> np.ndarray:
        own = _own(cache)
        count = check_append(self.spec, cache, pieces, start=start, positions=positions, visible=visible, logits_for=logits_for)
        if not count:
            return np.zeros((0, self.spec.vocabulary), dtype=np.float32)
        with _engine_errors(f'reading {count} tokens'):
            wanted = torch.as_tensor(list(logits_for), dtype=torch.long, device=self._like.device)
            words = [piece for piece in pieces if not isinstance(piece, VisualTokens)]
            if self._recorder and count <= VERIFY_TOKENS and len(words) == len(pieces):
                step = self._recorded(own, count, start + count, self._recorder)
                logits = step.run(np.concatenate(words), start=start, positions=positions, visible=visible)
                return _to_host(logits[wanted])
            embeddings = torch.cat([self._embed(piece) for piece in pieces])
            at = torch.tensor(np.asarray(positions), device=self._like.device)
            shown = torch.tensor(np.asarray(visible, dtype=bool), device=self._like.device)
            hidden = embeddings.new_empty((len(wanted), self.spec.width))
            for begin in range(0, count, self.spec.max_append):
                end = min(begin + self.spec.max_append, count)
                mask = shown.new_ones((end - begin, start + end)).tril(start + begin)
                mask[:, :start] &= shown
                states = self._decoder(embeddings[None, begin:end], at[begin:end], mask[None, None],
                                       cache=own.layers, start=start + begin)[0]
                here = (begin <= wanted) & (wanted < end)
                hidden[here] = states[wanted[here] - begin]
            return _to_host(self._decoder.logits(hidden))

    def move_rows(self, cache: KVCache, *, source: int, target: int, count: int) -> None:
        check_move(cache, source=source, target=target, count=count)
        with _engine_errors('moving cache rows'):
            for layer in _own(cache).layers:
                for buffer in layer:
                    # The two places may overlap, so the rows make a stop elsewhere.
                    buffer[target:target + count] = buffer[source:source + count].clone()

    def _recorded(self, cache: TorchCache, count: int, end: int, recorder: Recorder) -> RecordedAppend:
        """The recorded append that holds this many rows up to row ``end``; recorded when it is first needed."""
        shape = 1 if count == 1 else VERIFY_TOKENS, rows_looked_at(end, cache.capacity_rows)
        if shape not in cache.recorded:
            cache.recorded[shape] = RecordedAppend(self._decoder, cache.layers, rows=shape[0], looked_at=shape[1],
                                                   unused_row=cache.capacity_rows, recorder=recorder)
        return cache.recorded[shape]

    def _embed(self, piece: Piece) -> Tensor:
        """Rows [count, H] of a piece."""
        if not isinstance(piece, VisualTokens):
            return self._decoder.embed_tokens(torch.tensor(piece, dtype=torch.long, device=self._like.device))
        if not isinstance(piece.data, Tensor) or piece.data.shape != (piece.count, self.spec.width):
            found = list(piece.data.shape) if hasattr(piece.data, 'shape') else type(piece.data).__name__
            raise EngineError(f'visual tokens hold {found}; a tensor [{piece.count}, {self.spec.width}] was needed. '
                              'Encode the frame with the vision engine of the same model and backend.')
        return piece.data.to(self._like)


def _own(cache: KVCache) -> TorchCache:
    if not isinstance(cache, TorchCache):
        raise EngineError(f"the cache is a {type(cache).__name__}, made by another engine. Use this engine's new_cache.")
    return cache


def run_golden_case(model: PenguinVL, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Everything that a golden case may hold, computed anew from its inputs (backends/golden.py says which those are).

    encoder_embed, encoder_hidden_1..L, encoder_final [P, C], encoder_merged [M, C], projector [M, H], inputs_embeds [S, H]
    and logits [S, V] come from one pass without a cache; greedy_tokens and greedy_logits, as many as the case has, from the
    engines with theirs.
    """
    inputs = {name: torch.tensor(arrays[name], device=model.decoder.norm.weight.device)
              for name in ('input_ids', 'pixel_values', 'grid_sizes', 'merge_sizes') if name in arrays}
    made = run_case_on_engines(
        lambda merge: TorchVisionEngine(model, merge=merge), TorchLanguageEngine(model), arrays,
        row_of_tokens=lambda tokens: _to_host(tokens.data), greedy_steps=len(arrays.get('greedy_tokens', ())))
    with _engine_errors('running a golden case'), _outputs_of(model) as outputs:
        logits = model(inputs['input_ids'], *(inputs.get(name) for name in ('pixel_values', 'grid_sizes', 'merge_sizes')))
    return {**made, **{name: _to_host(torch.cat(parts)) for name, parts in outputs.items()}, 'logits': _to_host(logits[0])}


@contextmanager
def _outputs_of(model: PenguinVL) -> Iterator[dict[str, list[Tensor]]]:
    """Collect what the parts of a model put out meanwhile, by golden name; one tensor [rows, width] per call and frame."""
    outputs: dict[str, list[Tensor]] = defaultdict(list)

    def keep(module: torch.nn.Module, name: str, *, output: bool = True) -> torch.utils.hooks.RemovableHandle:
        def hook(_: torch.nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
            tensor = result if output else args[0]
            outputs[name].append(tensor.reshape(-1, tensor.shape[-1]))
        return module.register_forward_hook(hook)

    hooks = [
        keep(model.encoder.embeddings['patch_embedding'], 'encoder_embed'),
        *(keep(layer, f'encoder_hidden_{number}') for number, layer in enumerate(model.encoder.layers, start=1)),
        keep(model.encoder.norm, 'encoder_final'), keep(model.encoder, 'encoder_merged'), keep(model.projector, 'projector'),
        keep(model.decoder, 'inputs_embeds', output=False),
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _engine_errors(doing: str) -> Iterator[None]:
    """Compute without gradients; what torch reports (out of memory, a lost device) becomes an EngineError."""
    try:
        with torch.inference_mode():
            yield
    except RuntimeError as error:
        raise EngineError(f'PyTorch failed while {doing}: {error}. If memory ran out, lower the token budget or the number of '
                          'cache rows, or choose a smaller dtype.') from error


def _to_host(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
