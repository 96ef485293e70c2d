"""Serves `pip install` without ROS; on ROS 2 the package is built by CMakeLists.txt. Metadata lives in pyproject.toml.

Here is only what TOML cannot say: which files go to share/penguin_ros, where penguin_ros/shipped.py finds them.
"""

from __future__ import annotations

import os

from setuptools import setup

SHIPPED = ('msg', 'srv', 'action', 'config', 'engines', 'calibration', 'recordings')
LEFT_OUT = ('.engine', '.engine.tmp', '.pyc')      # engines belong to the machine they were built on


def shipped_files() -> list[tuple[str, list[str]]]:
    """Every file of the shipped folders, by the folder it is installed in."""
    found = []
    for shipped in SHIPPED:
        for folder, _, files in sorted(os.walk(shipped)):
            kept = [os.path.join(folder, file) for file in sorted(files) if not file.endswith(LEFT_OUT)]
            if kept:
                found.append((os.path.join('share', 'penguin_ros', folder), kept))
    return found


setup(data_files=shipped_files())
