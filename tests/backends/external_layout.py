"""How the weights of a graph lie in the files beside it, and what is wrong with that. Knows nothing of their values."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import onnx

PAGE_BYTES = 4096
LARGEST_MESSAGE_BYTES = 2**31 - 1       # of protobuf, so of a graph file
MOST_VALUES = 2**31 - 1                 # of one tensor in TensorRT


@dataclass(frozen=True)
class Place:
    """Where one weight lies."""

    name: str
    file: str
    offset: int
    nbytes: int


def places_of(path: Path) -> list[Place]:
    """Of every weight of a graph file that lies outside of it."""
    found = []
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            said = {entry.key: entry.value for entry in tensor.external_data}
            found.append(Place(tensor.name, said['location'], int(said['offset']), int(said['length'])))
    return found


def layout_problems(path: Path) -> list[str]:
    """Weights that are not whole, not on a page, overlap or leave room unused; files and graphs larger than can be read."""
    problems = []
    if path.stat().st_size > LARGEST_MESSAGE_BYTES:
        problems.append(f'{path.name} has {path.stat().st_size} bytes')
    sizes = {}
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        values = math.prod(tensor.dims)
        sizes[tensor.name] = (-(-values // 2) if tensor.data_type == onnx.TensorProto.INT4     # two to a byte
                              else values * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
        if values > MOST_VALUES:
            problems.append(f'{tensor.name} has {values} values')
    by_file = defaultdict(list)
    for place in places_of(path):
        by_file[place.file].append(place)
        if place.nbytes != sizes[place.name]:
            problems.append(f'{place.name} has {place.nbytes} bytes instead of {sizes[place.name]}')
        if place.offset % PAGE_BYTES:
            problems.append(f'{place.name} begins at {place.offset}, in the middle of a page')
    for file, places in by_file.items():
        end = 0
        for place in sorted(places, key=lambda place: place.offset):
            if not end <= place.offset < end + PAGE_BYTES:
                problems.append(f'{place.name} begins at {place.offset} of {file}, what comes before it ends at {end}')
            end = place.offset + place.nbytes
        if end != (path.parent / file).stat().st_size:
            problems.append(f'{file} ends at {(path.parent / file).stat().st_size} instead of {end}')
    return problems
