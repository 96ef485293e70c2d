"""Runs the tests of inside/ in a real ROS 2, each file in one process, alone on its own loopback interface.

On a machine with a full ROS 2, in a sourced workspace, they run as they are (test_launch and cv_bridge's part only there):

    PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 python3 -m pytest --noconftest tests/ros/inside
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ros.wheels import HERE, SITE, Ros, install_copy

INSIDE = sorted((HERE / 'inside').glob('test_*.py'))


@pytest.mark.parametrize('file', INSIDE, ids=lambda file: file.stem)
def test_in_ros(ros: Ros, file: Path) -> None:
    said = ros.run('python', '-m', 'pytest', '-p', 'no:cacheprovider', '--noconftest', '-rs', file, timeout_s=240.0)
    print(said)
    skipped = [line for line in said.splitlines() if line.startswith('SKIPPED')]
    if skipped and ' passed' not in said:
        pytest.skip(skipped[0].split(': ', 1)[1])


def test_what_cmake_installs_runs_without_the_source_tree(ros: Ros, tmp_path: Path) -> None:
    install_copy(ros, tmp_path)
    node = tmp_path / 'lib' / 'penguin_ros' / 'penguin_node'
    said = ros.run('python', HERE / 'inside' / 'until_ready.py', node, python_path=str(tmp_path / SITE))
    assert f'loaded from {tmp_path}/share/penguin_ros/engines/nano' in said
    for folder in ('launch', 'config', 'recordings', 'msg', 'srv', 'action'):
        assert list((tmp_path / 'share' / 'penguin_ros' / folder).iterdir()), folder
    assert not list(tmp_path.rglob('*.engine'))
