"""Write a checkpoint of random weights in the published layout, without ever holding it in memory. Test tool, no torch.

    python tests/model/write_random_checkpoint.py /tmp/penguin-2b                  4.34 GB, like tencent/Penguin-VL-2B
    python tests/model/write_random_checkpoint.py /tmp/penguin-8b --shape 8b --shards 4        17.3 GB
    python tests/model/write_random_checkpoint.py /tmp/encoder --shape encoder     like tencent/Penguin-Encoder
    python tests/model/write_random_checkpoint.py /tmp/tiny --shape tiny --dtype F32
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from penguin_ros.model.config import (
    PENGUIN_ENCODER,
    PENGUIN_VL_2B,
    PENGUIN_VL_8B,
    DecoderConfig,
    EncoderConfig,
    PenguinVLConfig,
)
from penguin_ros.model.weights import Shape, expected_encoder_shapes, expected_shapes, published_name, write_safetensors

# Random numbers are made once and repeated, since 8.7 G of them take minutes. A prime number of them, so that rows of a
# matrix differ; every tensor begins elsewhere among them, so that no two tensors are alike.
REPEATED_VALUES = 1_048_573

TINY = PenguinVLConfig(
    encoder=EncoderConfig(width=32, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_width=48, norm_eps=1e-6, rope_theta=1e4),
    decoder=DecoderConfig(width=48, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_width=64, norm_eps=1e-6, rope_theta=1e4,
                          vocabulary=128, max_positions=4096),
    image_token_id=127, tied_embeddings=True)
SHAPES: dict[str, PenguinVLConfig | EncoderConfig] = {
    '2b': PENGUIN_VL_2B, '8b': PENGUIN_VL_8B, 'encoder': PENGUIN_ENCODER, 'tiny': TINY, 'tiny-encoder': TINY.encoder}


def write_random_checkpoint(folder: Path, config: PenguinVLConfig | EncoderConfig, *, dtype: str = 'BF16', shards: int = 1,
                            seed: int = 0, spread: float = 0.07) -> None:
    """Write config.json and weights; an EncoderConfig gives the layout of Penguin-Encoder, ``shards`` > 1 an index file.

    A wider ``spread`` makes a small model say different things about different images.
    """
    encoder_alone = isinstance(config, EncoderConfig)
    expected = expected_encoder_shapes(config) if isinstance(config, EncoderConfig) else expected_shapes(config)
    shapes = {published_name(name, encoder_alone=encoder_alone): shape for name, shape in expected.items()}
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    # Norms near 1, everything else small enough to keep activations finite through many layers.
    values = (generator.random(REPEATED_VALUES, dtype=np.float32) - np.float32(0.5)) * np.float32(spread)
    plain, norm = _encoded(values, dtype), _encoded(values + np.float32(1), dtype)

    def content(name: str) -> Iterator[memoryview]:
        repeated = norm if 'norm' in name.split('.')[-2] else plain
        return _cycled(repeated, int(generator.integers(REPEATED_VALUES)), math.prod(shapes[name]))

    files = _share(shapes, shards)
    for file, names in files.items():
        write_safetensors(folder / file, {name: (dtype, shapes[name]) for name in names}, content)
    if shards > 1:
        item_bytes = 4 if dtype == 'F32' else 2
        index = {'metadata': {'total_size': sum(math.prod(shape) for shape in shapes.values()) * item_bytes},
                 'weight_map': {name: file for file, names in files.items() for name in names}}
        (folder / 'model.safetensors.index.json').write_text(json.dumps(index, indent=1, sort_keys=True))
    (folder / 'config.json').write_text(json.dumps(config.to_dict(), indent=1))


def _share(shapes: dict[str, Shape], shards: int) -> dict[str, list[str]]:
    """Names by file, in order and about equal in size."""
    if shards == 1:
        return {'model.safetensors': list(shapes)}
    files: dict[str, list[str]] = {f'model-{shard:05d}-of-{shards:05d}.safetensors': [] for shard in range(1, shards + 1)}
    total, done = sum(math.prod(shape) for shape in shapes.values()), 0
    for name, shape in shapes.items():
        files[list(files)[done * shards // total]].append(name)
        done += math.prod(shape)
    return files


def _cycled(values: np.ndarray, begin: int, count: int) -> Iterator[memoryview]:
    """``count`` values in pieces, from place ``begin`` on and from the start again after the end."""
    while count:
        piece = values[begin:begin + count]
        yield piece.data.cast('B')
        begin, count = 0, count - len(piece)


def _encoded(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == 'BF16':
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype('<u2')  # round to nearest, ties to even
    return values.astype({'F32': '<f4', 'F16': '<f2'}[dtype])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='where to write; made if needed')
    parser.add_argument('--shape', choices=SHAPES, default='2b', help='which model (default: 2b)')
    parser.add_argument('--dtype', choices=['BF16', 'F16', 'F32'], default='BF16', help='type of the numbers (default: BF16)')
    parser.add_argument('--shards', type=int, default=1, help='how many weight files; more than one get an index (default: 1)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the random numbers (default: 0)')
    args = parser.parse_args()
    began_s = time.monotonic()
    write_random_checkpoint(args.folder, SHAPES[args.shape], dtype=args.dtype, shards=args.shards, seed=args.seed)
    total_bytes = sum(file.stat().st_size for file in args.folder.glob('*.safetensors'))
    print(f'{args.folder}: {total_bytes:,} bytes of weights in {time.monotonic() - began_s:.1f} s')
    return 0


if __name__ == '__main__':
    sys.exit(main())
