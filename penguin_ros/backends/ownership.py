"""Who could have written a folder of engines. Knows nothing of what is in it (manifest.py).

A TensorRT engine is executable code: loading one that somebody else could have put there means running that somebody's
code (NVIDIA's security considerations; reference/tensorrt.md 8). So before one is loaded, the folder, the folders above it
and the files in it must belong to this user or to root, and nobody else may have leave to write.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from penguin_ros.core.errors import EngineError


def check_ownership(folder: str | Path, files: Iterable[str]) -> None:
    """Raise EngineError unless only this user and root could have written the files. Says nothing where users are unknown."""
    if not hasattr(os, 'geteuid'):
        return
    trusted = {0, os.geteuid()}
    real = Path(folder).resolve()
    for name in files:
        path = real / name
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise EngineError(f'{path} is no plain file but a {_kind(found.st_mode)}; what it leads to cannot be trusted. '
                              'Build the engine again: penguin build RECIPE')
        _check(path, found, trusted, may_be_shared=False)
    for place in (real, *real.parents):
        # Where the sticky bit is set (as on /tmp) others may add files, but not replace ours.
        found = place.stat()
        _check(place, found, trusted, may_be_shared=place != real and bool(found.st_mode & stat.S_ISVTX))


def _check(path: Path, found: os.stat_result, trusted: set[int], *, may_be_shared: bool) -> None:
    if found.st_uid not in trusted:
        raise EngineError(
            f'{path} belongs to user {found.st_uid}; this process is user {os.geteuid()}. An engine is executable '
            f'code, so it is loaded only from files of this user or root. Run as user {found.st_uid}, or, if you built it: '
            f'sudo chown -R {os.geteuid()} {path}')
    if found.st_mode & stat.S_IWOTH and not may_be_shared:
        raise EngineError(f'everyone may write to {path}. An engine is executable code, so it is loaded only where '
                          f'others cannot change it. Forbid it: chmod o-w {path}')


def _kind(mode: int) -> str:
    return 'symbolic link' if stat.S_ISLNK(mode) else 'folder' if stat.S_ISDIR(mode) else 'device or pipe'
