"""Digests of the golden vectors that were published, to notice a number that was changed where no computation can see it.

A pixel that tips no patch, a setting that does not matter in its case, a row of the embedding that no prompt reads: such a
number can be wrong and every result still right. So where most of a folder is the published one, each case must be so to
the byte. A folder of other vectors, laid out alike, matches nothing here and is judged by its numbers alone.
Made anew by ``python -m penguin_ros.verify.known DIR``. Knows nothing of what the vectors mean.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from penguin_ros.verify.findings import Record, canonical, read_arrays

_DIGITS = 8
_UNREADABLE = '-'

# One digest per record of cases.json, in order; of a model folder config.json and model.safetensors come first.
PUBLISHED: dict[str, str] = {
    'keyframes': (
        'f2954852 656df000 de1d9fab 22590743 df39a04e dda335d9 f69ca8cd d53b29b1 b8609cd2 5d4fcefb dc1a636b b7d126d4 '
        'a404f887 ab880ec9 38a9b1c8 c3b05969 985c1432 506ae0fa addafc03 bbdd2797 0e978661 a0a71377 c6b423f6 097d40b2 '
    ),
    'losses': (
        '5ccc5f17 85acf3e0 d893f9f7 08f69b30 '
    ),
    'model_A': (
        '888dd66e adebc248 b969278f 639e1ce9 a8518114 f1cf722a 2d6a3f5a '
    ),
    'model_B': (
        '90f42e5e acb15e5f c668fc73 c93bce10 e3e98c7d '
    ),
    'preprocess': (
        '6e41cd82 68ee115e 2cadeca0 32941b1d ee72dcc5 c5984d2b 81c6b66a 3bf06ae7 17947f16 df8640b0 3595d177 0b10460b '
        '0653d1ac afd8294c '
    ),
    'prompt': (
        '2e67484c ceb4fa8b e09fabe9 cc31d2cd c30787bf 3b215896 4e7f1d14 451144b8 25fd1cc3 217c1fc1 49356b4a 9c359a0a '
        '4ebff11b 4859c083 f0514654 fb2e5ace '
    ),
    'tra': (
        '3478befd 3bbb376d 33ad2915 17dee49b 3676e935 043af114 00da4865 e0d99118 4076520a 0b0fcfe1 ce17feef 6cf483d4 '
        'e5e2af5a 03785e14 dbecc360 893f8d9e aa6e2f06 c877ef1a 87089295 94fcdb6f 6660d58c 906865c5 b1fd6946 2bbd721b '
        '129298c2 6697901c 0e4fdd18 97b0a3fd 06a60e04 c9a6cfe4 2357141e 416945f1 0721abc5 cf853a4d 3e1b493f 062283e7 '
        '5cf00261 f8cee588 550e1e25 a268f803 6b26dc10 640230e0 0e45756a b18f2fa6 6218de0a 5871fc35 24f55013 34de308b '
        '58cd0e3b 11635408 6363575a 3dc6b1dd dea04223 55500afd db59a9c1 ab852f3b 48b6f434 e4d81286 51395a30 81831445 '
        '03315fbd fd10cb32 cfdc8fbd 636959e0 81a77912 e754fdce 42fafa44 36a2b2cb 49cb7983 da15f898 1da6258c b1a9dbc7 '
    ),
}


def digests(folder: Path, records: Sequence[Record]) -> list[str]:
    """What a golden folder holds, one digest per record with its arrays; of a model, config and weights first."""
    found = []
    if folder.name.startswith('model_'):
        found += [_digest(_config_bytes(folder)), _digest(_file_bytes(folder / 'model.safetensors'))]
    for record in records:
        # Most files are named from the folder above, a model's from its own.
        name = record.get('file') if isinstance(record, dict) else None
        path = folder / Path(name).name if isinstance(name, str) else None
        found.append(_digest(canonical(record), _array_bytes(path) if path else b''))
    return found


def changed(folder_name: str, found: Sequence[str]) -> set[int]:
    """Which of a folder's digests are not the published ones, if most are; nothing for a folder of other vectors."""
    published = PUBLISHED.get(folder_name, '').split()
    different = {index for index, (one, other) in enumerate(zip(found, published)) if one != other}
    return different if len(different) < len(published) / 2 else set()


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b'|'.join(parts)).hexdigest()[:_DIGITS] if _UNREADABLE.encode() not in parts else _UNREADABLE


def _config_bytes(folder: Path) -> bytes:
    try:
        return canonical(json.loads((folder / 'config.json').read_text()))
    except (OSError, ValueError):
        return _UNREADABLE.encode()


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return _UNREADABLE.encode()


def _array_bytes(path: Path) -> bytes:
    """The arrays themselves, however they were packed."""
    try:
        arrays = read_arrays(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return _UNREADABLE.encode()
    return b''.join(f'{name} {array.dtype.str} {array.shape}'.encode() + array.tobytes()
                    for name, array in sorted(arrays.items()))


if __name__ == '__main__':
    for place in sorted(Path(sys.argv[1]).glob('*/cases.json')):
        print(f'    {place.parent.name!r}: (')
        line = digests(place.parent, json.loads(place.read_text()))
        for start in range(0, len(line), 12):
            print(f'        {" ".join(line[start:start + 12]) + " "!r}')
        print('    ),')
