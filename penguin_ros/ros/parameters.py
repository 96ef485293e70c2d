"""Settings as ROS parameters: how one is described, and a parameter's value as the setting has it. Knows no node."""

from __future__ import annotations

import array
import sys
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from penguin_ros.core.bus import Setting


def descriptor_of(setting: Setting) -> ParameterDescriptor:
    when = 'May change at any time.' if setting.live else 'Read when the node is configured.'
    descriptor = ParameterDescriptor(name=setting.name, description=f'{setting.about}. {when}')
    if setting.choices:
        descriptor.additional_constraints = f'one of: {", ".join(setting.choices)}'
    # Types are checked here and not by rclpy, which would refuse 5 where 5.0 is meant and take [] for bytes.
    descriptor.dynamic_typing = True
    if setting.low is None and setting.high is None:
        return descriptor
    if isinstance(setting.default, float):
        descriptor.floating_point_range = [FloatingPointRange(
            from_value=float(-sys.float_info.max if setting.low is None else setting.low),
            to_value=float(sys.float_info.max if setting.high is None else setting.high))]
    else:
        descriptor.integer_range = [IntegerRange(
            from_value=int(-2**63 if setting.low is None else setting.low),
            to_value=int(2**63 - 1 if setting.high is None else setting.high), step=1)]
    return descriptor


def in_type_of(setting: Setting, value: Any) -> Any:
    """A parameter's value as the setting has it: a whole number is fine for a float, an array for a list."""
    if isinstance(setting.default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(setting.default, (list, tuple)) and isinstance(value, (list, tuple, array.array)):
        return list(value)
    return value
