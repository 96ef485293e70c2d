"""Runs the tests of inside/ in a real ROS 2, each file in one process, alone on its own loopback interface."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ros.wheels import HERE, Ros

INSIDE = sorted((HERE / 'inside').glob('test_*.py'))


@pytest.mark.parametrize('file', INSIDE, ids=lambda file: file.stem)
def test_in_ros(ros: Ros, file: Path) -> None:
    print(ros.run('python', '-m', 'pytest', '-p', 'no:cacheprovider', '--noconftest', '--durations=5', file, timeout_s=240.0))
