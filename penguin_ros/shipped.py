"""Where the files lie that come with penguin_ros beside its code: engines, recordings, interface texts, parameter files."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from penguin_ros.core.errors import PenguinError

PACKAGE = 'penguin_ros'


def shipped_roots() -> Iterator[Path]:
    """Folders that may hold them: the source tree's, a ROS 2 workspace's share folder, an environment's share folder."""
    package = Path(__file__).resolve().parent
    share = Path('share') / PACKAGE
    yield package.parent
    for parent in package.parents:
        yield parent / share
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        if prefix:
            yield Path(prefix) / share
    yield Path(sysconfig.get_path('data')) / share


def shipped(relative: str) -> Path:
    """The file or folder of this name, such as ``engines/nano``. Raises PenguinError when it is nowhere."""
    roots = list(shipped_roots())
    for root in roots:
        if (root / relative).exists():
            return root / relative
    raise PenguinError(f'{relative} does not come with this installation (looked in {", ".join(map(str, roots[:3]))} and '
                       f'{len(roots) - 3} more). Install penguin_ros again, or run it from its source tree.')
