"""Read and write the safetensors files of a checkpoint folder, with numpy alone. Knows nothing of torch or of ONNX.

Canonical names. Checkpoints write the same tensor under several names; everything in this project uses one, which is also
the name in ``PenguinVL.state_dict()`` (model/definition.py). Source: reference/penguin_vl.md 5.2.

    in the files                                                        canonical
    model.vision_encoder.vision_encoder.embeddings.patch_embedding.*    encoder.embeddings.patch_embedding.*
    model.vision_encoder.vision_encoder.encoder.*                       encoder.*          (layers.N.*, norm.weight)
    model.vision_encoder.{embeddings,encoder}.*     shorter prefix      as above
    {embeddings,encoder}.*                          Penguin-Encoder     as above
    model.vision_projector.*                                            projector.*        (readout.0.*, readout.2.*)
    model.{embed_tokens,layers,norm}.*                                  decoder.*
    lm_head.weight                                  only if untied      decoder.lm_head.weight

Rotary frequencies, audio parts, the teacher encoder and its distillation layer are passed over. Any other name stays as it
is in the file, so that the check against the configuration can report it.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penguin_ros.backends.manifest import hash_files
from penguin_ros.core.errors import CheckpointError
from penguin_ros.model.config import BlockConfig, EncoderConfig, PenguinVLConfig

Shape = tuple[int, ...]

_LONG_ENCODER = 'model.vision_encoder.vision_encoder.'
_PREFIXES = [  # (in the file, canonical), the first that fits
    *((f'{prefix}embeddings.', 'encoder.embeddings.')
      for prefix in (_LONG_ENCODER, 'model.vision_encoder.', '')),
    *((f'{prefix}encoder.', 'encoder.')
      for prefix in (_LONG_ENCODER, 'model.vision_encoder.', '')),
    ('model.vision_projector.', 'projector.'),
    *((f'model.{part}.', f'decoder.{part}.') for part in ('embed_tokens', 'layers', 'norm')),
    ('lm_head.', 'decoder.lm_head.'),
]
_PASSED_OVER = re.compile(
    r'(^|\.)rotary_emb\.inv_freq$|^(model\.)?audio_|^(model\.)?(vision_encoder_teacher|vision_distill_layer)\.')

_ITEM_BYTES = {'BF16': 2, 'F16': 2, 'F32': 4}
_OTHER_ITEM_BYTES = {'F64': 8, 'I64': 8, 'U64': 8, 'I32': 4, 'U32': 4, 'I16': 2, 'U16': 2, 'I8': 1, 'U8': 1, 'BOOL': 1,
                     'F8_E4M3': 1, 'F8_E5M2': 1}
_LONGEST_HEADER_BYTES = 100_000_000  # what the format allows
_BLOCK_BYTES = 4 << 20  # of a file that are in memory at a time
_NAMES_IN_AN_ERROR = 5


@dataclass(frozen=True)
class Span:
    """Where a tensor's bytes lie."""

    file: Path
    offset: int
    nbytes: int


@dataclass(frozen=True)
class _Entry:
    stored_name: str
    dtype: str
    shape: Shape
    span: Span


class WeightFiles:
    """All tensors of one checkpoint folder under their canonical names; nothing is read before it is asked for, or kept.

    Every header is checked when the folder is opened: a file that is cut off, damaged or missing raises CheckpointError.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._entries: dict[str, _Entry] = {}
        for file, listed in _weight_files(self.folder).items():
            entries = _read_header(file)
            if absent := [name for name in listed if name not in entries]:
                raise CheckpointError(f'{file} lacks {_some(absent)}, which the index of {self.folder} places there. '
                                      'Download the folder again.')
            for name, entry in entries.items():
                self._add(canonical_name(name), entry)

    def names(self) -> list[str]:
        """Canonical names, sorted."""
        return sorted(self._entries)

    def hashes(self) -> dict[str, str]:
        """The sha256 of each weights file, by name; reads them whole."""
        return {name: entry.sha256 for name, entry in hash_files(
            self.folder, {entry.span.file.name for entry in self._entries.values()}).items()}

    def shape(self, name: str) -> Shape:
        return self._entry(name).shape

    def dtype(self, name: str) -> str:
        """The type as safetensors spells it: F32, F16, BF16, ..."""
        return self._entry(name).dtype

    def stored_name(self, name: str) -> str:
        """The name in the file."""
        return self._entry(name).stored_name

    def span(self, name: str) -> Span:
        """Where the bytes lie: little-endian, row-major, as ``dtype`` says."""
        return self._entry(name).span

    def read(self, name: str) -> np.ndarray:
        """The whole tensor: float16 if that is its type, else float32, bfloat16 being widened."""
        whole = np.empty(self.shape(name), np.float16 if self.dtype(name) == 'F16' else np.float32)
        for begin, rows in self.blocks(name):
            whole[begin:begin + len(rows)] = rows
        return whole

    def blocks(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """The tensor as ``read`` gives it, some rows at a time, and where each block begins.

        Read, not mapped: mapped pages would stay in memory behind the reader, in the end the whole checkpoint.
        """
        entry = self._entry(name)
        if entry.dtype not in _ITEM_BYTES:
            raise CheckpointError(f'{entry.stored_name} in {entry.span.file} has type {entry.dtype}; '
                                  f'{", ".join(_ITEM_BYTES)} can be read. Use the unquantised checkpoint.')
        stored = np.dtype({'BF16': '<u2', 'F16': '<f2', 'F32': '<f4'}[entry.dtype])
        rows, *rest = entry.shape
        row_bytes = math.prod(rest) * stored.itemsize
        at_once = max(1, _BLOCK_BYTES // max(1, row_bytes))
        with entry.span.file.open('rb', buffering=0) as stream:
            stream.seek(entry.span.offset)
            for begin in range(0, rows, at_once):
                count = min(at_once, rows - begin)
                block = np.frombuffer(_read_exactly(stream, count * row_bytes), stored).reshape(count, *rest)
                if entry.dtype == 'BF16':
                    wide = block.astype(np.uint32)
                    wide <<= 16  # a bfloat16 is the upper half of a float32
                    block = wide.view(np.float32)
                yield begin, block

    def _add(self, name: str | None, entry: _Entry) -> None:
        if name is None:
            return
        if name in self._entries:
            other = self._entries[name]
            raise CheckpointError(f'{other.stored_name} in {other.span.file} and {entry.stored_name} in {entry.span.file} are '
                                  'the same tensor. Remove the file that does not belong to the checkpoint.')
        self._entries[name] = entry

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise CheckpointError(f'{self.folder} has no tensor {name}. Take config.json and the weights from the same place.')
        return self._entries[name]


def canonical_name(stored_name: str) -> str | None:
    """The canonical name (see the top of this file), or None for a tensor that is passed over."""
    if _PASSED_OVER.search(stored_name):
        return None
    for prefix, canonical in _PREFIXES:
        if stored_name.startswith(prefix):
            return canonical + stored_name[len(prefix):]
    return stored_name


def published_name(name: str, *, encoder_alone: bool = False) -> str:
    """The name that published checkpoints use for a canonical one; ``encoder_alone`` as in Penguin-Encoder."""
    section, _, rest = name.partition('.')
    if section == 'encoder':
        inner = rest if rest.startswith('embeddings.') else name
        return inner if encoder_alone else _LONG_ENCODER + inner
    if section == 'projector':
        return f'model.vision_projector.{rest}'
    return rest if rest.startswith('lm_head.') else f'model.{rest}'


def expected_shapes(config: PenguinVLConfig) -> dict[str, Shape]:
    """Canonical name and shape of every tensor a Penguin-VL of this configuration has."""
    decoder = config.decoder
    shapes: dict[str, Shape] = {'decoder.embed_tokens.weight': (decoder.vocabulary, decoder.width)}
    shapes |= _block_shapes('decoder.', decoder)
    if not config.tied_embeddings:
        shapes['decoder.lm_head.weight'] = (decoder.vocabulary, decoder.width)
    shapes |= expected_encoder_shapes(config.encoder)
    for layer in range(config.projector_depth):
        inputs = config.encoder.width if layer == 0 else decoder.width
        shapes[f'projector.readout.{2 * layer}.weight'] = (decoder.width, inputs)  # the odd numbers are GELUs
        shapes[f'projector.readout.{2 * layer}.bias'] = (decoder.width,)
    return shapes


def expected_encoder_shapes(config: EncoderConfig) -> dict[str, Shape]:
    """Canonical name and shape of every tensor of the vision encoder."""
    return {
        'encoder.embeddings.patch_embedding.weight': (config.width, 3, config.patch_px, config.patch_px),
        'encoder.embeddings.patch_embedding.bias': (config.width,),
        **_block_shapes('encoder.', config),
    }


def _block_shapes(prefix: str, config: BlockConfig) -> dict[str, Shape]:
    query_width, key_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
    block = {
        'input_layernorm': (config.width,), 'post_attention_layernorm': (config.width,),
        'self_attn.q_proj': (query_width, config.width), 'self_attn.k_proj': (key_width, config.width),
        'self_attn.v_proj': (key_width, config.width), 'self_attn.o_proj': (config.width, query_width),
        'self_attn.q_norm': (config.head_dim,), 'self_attn.k_norm': (config.head_dim,),
        'mlp.gate_proj': (config.mlp_width, config.width), 'mlp.up_proj': (config.mlp_width, config.width),
        'mlp.down_proj': (config.width, config.mlp_width),
    }
    shapes = {f'{prefix}layers.{layer}.{name}.weight': shape for layer in range(config.layers) for name, shape in block.items()}
    return {**shapes, f'{prefix}norm.weight': (config.width,)}


def open_weights(folder: str | Path, config: PenguinVLConfig) -> WeightFiles:
    """Open a whole Penguin-VL's weights and check every tensor against the configuration."""
    files = WeightFiles(folder)
    expected = expected_shapes(config)
    found = set(files.names())
    if config.tied_embeddings and _repeats_the_embedding(files):
        found.remove('decoder.lm_head.weight')
    _check(files, found, expected, encoder_alone=False)
    return files


def open_encoder_weights(folder: str | Path, config: EncoderConfig) -> WeightFiles:
    """Open a folder like Penguin-Encoder, or a whole Penguin-VL of which only the encoder is wanted, and check it."""
    files = WeightFiles(folder)
    is_whole = any(name.startswith('decoder.') for name in files.names())
    found = {name for name in files.names() if not is_whole or name.startswith('encoder.')}
    _check(files, found, expected_encoder_shapes(config), encoder_alone=not is_whole)
    return files


def _check(files: WeightFiles, found: set[str], expected: Mapping[str, Shape], *, encoder_alone: bool) -> None:
    missing = [published_name(name, encoder_alone=encoder_alone) for name in expected if name not in found]
    extra = [files.stored_name(name) for name in sorted(found - expected.keys())]
    misshapen = [f'{files.stored_name(name)} {list(files.shape(name))} instead of {list(shape)}'
                 for name, shape in expected.items() if name in found and files.shape(name) != shape]
    odd_types = [f'{files.stored_name(name)} {files.dtype(name)}' for name in expected
                 if name in found and files.dtype(name) not in _ITEM_BYTES]
    faults = [f'{what} {_some(names)}' for what, names in [
        ('missing', missing), ('not part of this model:', extra), ('wrong shape:', misshapen),
        (f'type other than {", ".join(_ITEM_BYTES)}:', odd_types)] if names]
    if faults:
        raise CheckpointError(f'The weights in {files.folder} do not fit its config.json: {"; ".join(faults)}. '
                              'Take both from the same place, or download the folder again.')


def _repeats_the_embedding(files: WeightFiles) -> bool:
    """Whether there is an output matrix whose bytes equal the embedding's, as some exports of tied models have."""
    names = 'decoder.lm_head.weight', 'decoder.embed_tokens.weight'
    if not set(names) <= set(files.names()) or len({(files.dtype(name), files.shape(name)) for name in names}) > 1:
        return False
    head, embedding = (files.span(name) for name in names)
    with head.file.open('rb') as head_stream, embedding.file.open('rb') as embedding_stream:
        head_stream.seek(head.offset)
        embedding_stream.seek(embedding.offset)
        remaining = head.nbytes
        while remaining:
            chunk = min(remaining, 1 << 22)
            if head_stream.read(chunk) != embedding_stream.read(chunk):
                return False
            remaining -= chunk
    return True


def _weight_files(folder: Path) -> dict[Path, list[str]]:
    """The folder's weight files, each with the names that an index says are in it."""
    if (folder / 'model.safetensors').is_file():
        return {folder / 'model.safetensors': []}
    index = folder / 'model.safetensors.index.json'
    if index.is_file():
        try:
            weight_map = dict(json.loads(index.read_text(encoding='utf-8'))['weight_map'])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f'{index} cannot be read ({error!r}). Download it again.') from error
        listed: dict[Path, list[str]] = {}
        for name, file in weight_map.items():
            listed.setdefault(folder / str(file), []).append(name)
        if absent := [file.name for file in listed if not file.is_file()]:
            raise CheckpointError(f'{folder} lacks {_some(absent)}, named in {index.name}. Download the missing files.')
        return listed
    if files := sorted(folder.glob('*.safetensors')):
        return {file: [] for file in files}
    other = sorted(file.name for pattern in ('*.bin', '*.pt', '*.pth', '*.gguf') for file in folder.glob(pattern))
    found = f'only {_some(other)}' if other else 'no weights'
    raise CheckpointError(f'{folder} has {found}; model.safetensors, or shards with model.safetensors.index.json, were needed. '
                          'Check the path, or download the safetensors files.')


def _read_header(file: Path) -> dict[str, _Entry]:
    """Check one file's header against its size; return its entries by stored name."""
    size = file.stat().st_size
    with file.open('rb') as stream:
        length = int.from_bytes(stream.read(8), 'little')
        if size < 8 or length > min(size - 8, _LONGEST_HEADER_BYTES):
            stream.seek(0)
            if stream.read(12) == b'version http':
                raise CheckpointError(f'{file} is a Git LFS pointer, not the weights. Run "git lfs pull" in its folder.')
            raise CheckpointError(f'{file} has {size} bytes, too few for the header of {length} bytes it announces: '
                                  'it is cut off or not a safetensors file. Download it again.')
        header_bytes = stream.read(length)
    try:
        header = json.loads(header_bytes)
        entries = {name: _read_entry(file, name, fields, 8 + length)
                   for name, fields in header.items() if name != '__metadata__'}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f'{file} has a damaged header ({error!r}). Download it again.') from error
    end = 8 + length
    for entry in sorted(entries.values(), key=lambda entry: (entry.span.offset, entry.span.nbytes)):
        if entry.span.offset != end:
            raise CheckpointError(f'{file} has a damaged header: {entry.stored_name} begins at byte {entry.span.offset} '
                                  f'instead of {end}. Download it again.')
        end += entry.span.nbytes
    if end != size:
        state = 'is cut off' if size < end else 'has bytes that belong to no tensor'
        raise CheckpointError(f'{file} {state}: it has {size} bytes, its header describes {end}. Download it again.')
    return entries


def _read_entry(file: Path, name: str, fields: Mapping[str, object], data_start: int) -> _Entry:
    dtype, shape, offsets = fields['dtype'], fields['shape'], fields['data_offsets']
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2 \
            or any(type(number) is not int or number < 0 for number in [*shape, *offsets]):
        raise ValueError(f'{name} has shape {shape} and offsets {offsets}')
    item_bytes = (_ITEM_BYTES | _OTHER_ITEM_BYTES).get(str(dtype))
    if item_bytes is None:
        raise ValueError(f'{name} has the unknown type {dtype}')
    begin, end = offsets
    if end - begin != math.prod(shape) * item_bytes:
        raise ValueError(f'{name} of shape {shape} and type {dtype} has {end - begin} bytes')
    return _Entry(name, str(dtype), tuple(shape), Span(file, data_start + begin, end - begin))


def write_safetensors(file: Path, tensors: Mapping[str, tuple[str, Shape]],
                      content: Callable[[str], Iterable[bytes | memoryview]]) -> None:
    """Write one file, tensor by tensor in order of name, so that no more than one piece of content is held in memory.

    ``tensors`` gives type and shape by stored name, ``content`` the bytes of one tensor in pieces. The file appears under
    its name only when it is whole.
    """
    header: dict[str, object] = {'__metadata__': {'format': 'pt'}}
    end = 0
    for name in sorted(tensors):
        dtype, shape = tensors[name]
        begin, end = end, end + math.prod(shape) * _ITEM_BYTES[dtype]
        header[name] = {'dtype': dtype, 'shape': list(shape), 'data_offsets': [begin, end]}
    header_bytes = json.dumps(header, separators=(',', ':')).encode()
    header_bytes += b' ' * (-len(header_bytes) % 8)
    unfinished = file.with_name(file.name + '.unfinished')
    try:
        with unfinished.open('wb') as stream:
            stream.write(len(header_bytes).to_bytes(8, 'little'))
            stream.write(header_bytes)
            for name in sorted(tensors):
                for piece in content(name):
                    stream.write(piece)
        found, needed = unfinished.stat().st_size, 8 + len(header_bytes) + end
        if found != needed:
            raise CheckpointError(f'{file} would have {found} bytes, its tensors need {needed}. Give each all its bytes.')
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)  # a full disk must not also keep half a checkpoint


def _read_exactly(stream: io.FileIO, nbytes: int) -> bytearray:
    """The next bytes of a file whose size was checked when it was opened."""
    content = bytearray(nbytes)
    room = memoryview(content)
    while room:
        count = stream.readinto(room)
        if not count:
            raise CheckpointError(f'{stream.name} became shorter while it was read. Download it again.')
        room = room[count:]
    return content


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - _NAMES_IN_AN_ERROR
    return ', '.join(names[:_NAMES_IN_AN_ERROR]) + (f' and {rest} more' if rest > 0 else '')
