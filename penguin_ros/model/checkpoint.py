"""Load and save the PyTorch modules of model/definition.py. Knows nothing of names in files or headers (weights.py).

Loading maps the files into memory and hands the mapped bytes to the modules, so a checkpoint costs its own size and is read
from disk only where it is used. The mapping is private: changing a weight never changes the file.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from penguin_ros.model.config import config_from_folder, encoder_config_from_folder
from penguin_ros.model.definition import Encoder, PenguinVL
from penguin_ros.model.weights import WeightFiles, open_encoder_weights, open_weights, published_name, write_safetensors

_TORCH_TYPES = {'BF16': torch.bfloat16, 'F16': torch.float16, 'F32': torch.float32}
_STORED_TYPES = {torch_type: stored for stored, torch_type in _TORCH_TYPES.items()}


def load_model(folder: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device = 'cpu',
               fused_attention: bool | None = None) -> PenguinVL:
    """A Penguin-VL from a folder laid out like tencent/Penguin-VL-2B or -8B.

    ``dtype`` None keeps the files' type (the widest, if they mix types). Raises CheckpointError with the names of all
    tensors that are missing, too many or of the wrong shape.
    """
    config = config_from_folder(folder)
    files = open_weights(folder, config)
    with torch.device('meta'):  # shapes only: no memory is spent on weights that are about to be replaced
        model = PenguinVL(config, fused_attention=fused_attention)
    _assign(model, files, prefix='', dtype=dtype, device=torch.device(device))
    return model.eval()


def load_encoder(folder: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device = 'cpu') -> Encoder:
    """The vision encoder alone, from a folder like tencent/Penguin-Encoder or out of a whole Penguin-VL."""
    config = encoder_config_from_folder(folder)
    files = open_encoder_weights(folder, config)
    with torch.device('meta'):
        encoder = Encoder(config)
    _assign(encoder, files, prefix='encoder.', dtype=dtype, device=torch.device(device))
    return encoder.eval()


def save_checkpoint(folder: str | Path, model: PenguinVL, *, dtype: torch.dtype | None = None) -> None:
    """Write config.json and model.safetensors with the published names; ``dtype`` None keeps the model's type."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {published_name(name): tensor.detach() for name, tensor in model.state_dict().items()}

    def content(name: str) -> Iterable[memoryview]:
        tensor = weights[name].to('cpu', dtype).contiguous()
        return [memoryview(tensor.flatten().view(torch.uint8).numpy())]

    write_safetensors(folder / 'model.safetensors',
                      {name: (_STORED_TYPES[dtype or tensor.dtype], tuple(tensor.shape)) for name, tensor in weights.items()},
                      content)
    (folder / 'config.json').write_text(json.dumps(model.config.to_dict(), indent=1) + '\n', encoding='utf-8')


def _assign(module: torch.nn.Module, files: WeightFiles, *, prefix: str, dtype: torch.dtype | None,
            device: torch.device) -> None:
    names = {prefix + name: name for name in module.state_dict()}
    dtype = dtype or reduce(torch.promote_types, (_TORCH_TYPES[files.dtype(name)] for name in names))
    module.load_state_dict({names[name]: tensor for name, tensor in _tensors(files, names, dtype, device)}, assign=True)


def _tensors(files: WeightFiles, names: Iterable[str], dtype: torch.dtype,
             device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Each tensor as asked for: mapped where type and device are the file's, else converted one at a time."""
    maps: dict[Path, mmap.mmap] = {}
    for name in names:
        span = files.span(name)
        if span.file not in maps:
            with span.file.open('rb') as stream:
                maps[span.file] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        stored = _TORCH_TYPES[files.dtype(name)]
        raw = torch.frombuffer(maps[span.file], dtype=torch.uint8, count=span.nbytes, offset=span.offset)
        if span.offset % stored.itemsize:
            raw = raw.clone()  # old writers did not align their data, and torch computes on aligned numbers only
        mapped = raw.view(stored).view(files.shape(name))
        if (stored, torch.device('cpu')) == (dtype, device):
            yield name, mapped
            continue
        yield name, mapped.to(device, dtype)
        # Let go of the file's pages at once, else a converted checkpoint is in memory twice.
        page_start = span.offset - span.offset % mmap.PAGESIZE
        maps[span.file].madvise(mmap.MADV_DONTNEED, page_start, span.offset + span.nbytes - page_start)
