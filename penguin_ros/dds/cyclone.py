"""What is used of the cyclonedds package, gathered in one place; says what to do where it is missing."""

from __future__ import annotations

from typing import Any

from penguin_ros.core.errors import TransportError

try:
    from cyclonedds._clayer import ddspy_take, ddspy_write  # bytes; the Python layer above would decode and copy
    from cyclonedds.core import (
        DDSException,
        DDSStatus,
        GuardCondition,
        InstanceState,
        ReadCondition,
        SampleState,
        ViewState,
        WaitSet,
    )
    from cyclonedds.domain import Domain, DomainParticipant
    from cyclonedds.idl import make_idl_struct
    from cyclonedds.idl import types as idl_types
    from cyclonedds.internal import SampleInfo
    from cyclonedds.pub import DataWriter
    from cyclonedds.qos import Policy, Qos
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic
except ImportError as error:
    raise TransportError(
        f"Cyclone DDS cannot be used here: {error}. On a laptop: pip install 'penguin_ros[dds]'. There is no wheel for Linux "
        'on aarch64: on a robot use the ROS 2 shell instead, ros2 launch penguin_ros penguin.launch.py.') from error

idl: Any = idl_types     # its generic types have no stubs

__all__ = [
    'DDSException', 'DDSStatus', 'DataReader', 'DataWriter', 'Domain', 'DomainParticipant', 'GuardCondition', 'InstanceState',
    'Policy', 'Qos', 'ReadCondition', 'SampleInfo', 'SampleState', 'Topic', 'ViewState', 'WaitSet', 'ddspy_take',
    'ddspy_write', 'idl', 'make_idl_struct',
]
