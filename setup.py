"""Serves `pip install` without ROS; on ROS 2 the package is built by CMakeLists.txt. Metadata lives in pyproject.toml."""

from setuptools import setup

setup()
