"""A node's settings as ROS 2 parameters: the six rcl_interfaces services. Knows settings and messages, no middleware.

So `ros2 param list`, `get`, `set` and `describe` work on a node that runs without ROS 2.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from penguin_ros.core.bus import Bus, Handle, Message, Setting
from penguin_ros.dds.setting_table import SettingTable

NOT_SET, BOOL, INTEGER, DOUBLE, STRING, STRING_ARRAY = 0, 1, 2, 3, 4, 9      # rcl_interfaces/msg/ParameterType
DEPTH_RECURSIVE = 0
VALUE_FIELDS = {BOOL: 'bool_value', INTEGER: 'integer_value', DOUBLE: 'double_value', STRING: 'string_value',
                STRING_ARRAY: 'string_array_value'}


class NewMessage(Protocol):
    def __call__(self, type_name: str, **fields: Any) -> Message: ...


def serve_parameters(bus: Bus, table: SettingTable, is_configured: Callable[[], bool]) -> list[Handle]:
    """Open the parameter services of a bus's node."""
    answers = Answers(bus.new, table, is_configured)
    services = {
        'describe_parameters': ('DescribeParameters', answers.describe), 'get_parameters': ('GetParameters', answers.get),
        'get_parameter_types': ('GetParameterTypes', answers.types), 'list_parameters': ('ListParameters', answers.list),
        'set_parameters': ('SetParameters', answers.set),
        'set_parameters_atomically': ('SetParametersAtomically', answers.set_atomically)}
    return [bus.serve(f'~/{name}', f'rcl_interfaces/srv/{short}', _at_once(bus.new, f'rcl_interfaces/srv/{short}', answer))
            for name, (short, answer) in services.items()]


def _at_once(new: NewMessage, type_name: str,
             answer: Callable[[Message], dict[str, Any]]) -> Callable[[Message], Future[Message]]:
    def start(request: Message) -> Future[Message]:
        response: Future[Message] = Future()
        response.set_result(new(f'{type_name}_Response', **answer(request)))
        return response

    return start


class Answers:
    """The fields of each response, from the settings in force."""

    def __init__(self, new: NewMessage, table: SettingTable, is_configured: Callable[[], bool]) -> None:
        self._new, self._table, self._is_configured = new, table, is_configured

    def list(self, request: Message) -> dict[str, Any]:
        names = sorted(self._table.settings())
        prefixes, depth = list(request.prefixes), int(request.depth)

        def wanted(name: str) -> bool:
            roots = [''] if not prefixes else [prefix for prefix in prefixes if name == prefix or name.startswith(f'{prefix}.')]
            below = [name[len(root):].strip('.').count('.') for root in roots]
            return any(depth == DEPTH_RECURSIVE or levels < depth for levels in below)

        found = [name for name in names if wanted(name)]
        above = sorted({name.rpartition('.')[0] for name in found} - {''})
        return {'result': self._new('rcl_interfaces/msg/ListParametersResult', names=found, prefixes=above)}

    def get(self, request: Message) -> dict[str, Any]:
        values, settings = self._table.values(), self._table.settings()
        return {'values': [self._value(settings.get(name), values.get(name)) for name in request.names]}

    def types(self, request: Message) -> dict[str, Any]:
        settings = self._table.settings()
        return {'types': [parameter_type(settings[name]) if name in settings else NOT_SET for name in request.names]}

    def describe(self, request: Message) -> dict[str, Any]:
        settings = self._table.settings()
        return {'descriptors': [self._descriptor(name, settings.get(name)) for name in request.names]}

    def set(self, request: Message) -> dict[str, Any]:
        return {'results': [self._set([parameter]) for parameter in request.parameters]}

    def set_atomically(self, request: Message) -> dict[str, Any]:
        return {'result': self._set(request.parameters)}

    def _set(self, parameters: Any) -> Message:
        proposed: dict[str, Any] = {}
        reason = None
        for parameter in parameters:
            field = VALUE_FIELDS.get(int(parameter.value.type))
            if field is None:
                reason = (f'{parameter.name} cannot be unset or be an array of numbers. '
                          'Give true or false, a number, a text or a list of texts.')
                break
            proposed[parameter.name] = getattr(parameter.value, field)
        reason = reason or self._table.change(proposed, configured=self._is_configured())
        return self._new('rcl_interfaces/msg/SetParametersResult', successful=reason is None, reason=reason or '')

    def _value(self, setting: Setting | None, value: Any) -> Message:
        if setting is None:
            return self._new('rcl_interfaces/msg/ParameterValue', type=NOT_SET)
        kind = parameter_type(setting)
        return self._new('rcl_interfaces/msg/ParameterValue', type=kind, **{VALUE_FIELDS[kind]: value})

    def _descriptor(self, name: str, setting: Setting | None) -> Message:
        if setting is None:
            return self._new('rcl_interfaces/msg/ParameterDescriptor', name=name)
        kind = parameter_type(setting)
        limits = [f'one of: {", ".join(setting.choices)}'] if setting.choices else []
        limits += [] if setting.live else ['only while the node is not configured']
        ranges: dict[str, Any] = {}
        if kind in (INTEGER, DOUBLE) and setting.low is not None and setting.high is not None:
            whole, number = ('integer_range', int) if kind == INTEGER else ('floating_point_range', float)
            short = 'IntegerRange' if kind == INTEGER else 'FloatingPointRange'
            ranges[whole] = [self._new(f'rcl_interfaces/msg/{short}', from_value=number(setting.low),
                                       to_value=number(setting.high))]
        return self._new('rcl_interfaces/msg/ParameterDescriptor', name=name, type=kind, description=setting.about,
                         additional_constraints='; '.join(limits), **ranges)


def parameter_type(setting: Setting) -> int:
    """The rcl_interfaces/msg/ParameterType number of a setting."""
    kinds = {bool: BOOL, int: INTEGER, float: DOUBLE, str: STRING, list: STRING_ARRAY}
    return kinds[type(setting.default)]
