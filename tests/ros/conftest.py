"""Gives the tests a real ROS 2 (wheels.py), or says why there is none."""

from __future__ import annotations

import pytest

from tests.ros.wheels import CannotMake, Ros, make_ros

collect_ignore = ['inside']     # these run inside that ROS 2; test_in_ros.py starts them


@pytest.fixture(scope='session')
def ros() -> Ros:
    """A ROS 2 with our interfaces; the first call on a machine takes about a minute."""
    try:
        return make_ros()
    except CannotMake as reason:
        pytest.skip(f'no ROS 2 for the tests: {reason}')
