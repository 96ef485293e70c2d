"""Check what `penguin export` wrote: graphs against TensorRT's tables, the layout of weights, every weight's values.

    PYTHONPATH=. python tests/backends/check_export.py OUT CHECKPOINT

For exports too large for the test suite, with external weights. Holds one block of one tensor at a time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from external_layout import layout_problems
from tensorrt_tables import VERSIONS, problems_of

from penguin_ros.model.config import config_from_folder
from penguin_ros.model.weights import WeightFiles, open_weights


def main() -> int:
    out, checkpoint = (Path(argument) for argument in sys.argv[1:])
    weights = open_weights(checkpoint, config_from_folder(checkpoint))
    faults = 0
    for graph in ('vision.onnx', 'language.onnx'):
        model = onnx.load(out / graph, load_external_data=False)
        problems = [f'TensorRT {version}: {problem}' for version in VERSIONS for problem in problems_of(out / graph, version)]
        problems += layout_problems(out / graph)
        stored = [tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
        problems += [f'{tensor.name} differs from the checkpoint' for tensor in stored if not _equal(out, tensor, weights)]
        print(f'{graph}: {len(model.graph.node)} nodes, {(out / graph).stat().st_size:,} bytes, {len(stored)} weights outside; '
              f'{len(problems)} problems with TensorRT {", ".join(VERSIONS)}, layout and values')
        for problem in problems:
            print(f'  {problem}')
        faults += len(problems)
    return 1 if faults else 0


def _equal(out: Path, tensor: onnx.TensorProto, weights: WeightFiles) -> bool:
    """Whether a stored matrix [in, out], the embedding table or a vector is the checkpoint's, in the type it is stored in."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    found = np.memmap(out / said['location'], onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type), mode='r',
                      offset=int(said['offset']), shape=tuple(tensor.dims))
    rows, *columns = weights.shape(tensor.name)
    turned = len(tensor.dims) == 2 and said['location'] != 'embeddings.bin'
    if found.shape != ((int(np.prod(columns)), rows) if turned else (rows, *columns)):
        return False
    for begin, block in weights.blocks(tensor.name):
        end = begin + len(block)
        part = found[:, begin:end].T if turned else found[begin:end]
        if not np.array_equal(part, block.reshape(len(block), *([-1] if turned else columns)).astype(found.dtype)):
            return False
    return True


if __name__ == '__main__':
    sys.exit(main())
