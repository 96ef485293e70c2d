"""How a dataclass states its settings once (unit, range, default) and how middlewares and files read them from it.

Knows nothing of what any setting means (config.py and the rooms that own one).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from penguin_ros.core.bus import Setting
from penguin_ros.core.errors import ConfigError

Settings = TypeVar('Settings')


def setting(default: Any, about: str, *, low: float | None = None, high: float | None = None,
            choices: Sequence[str] = (), live: bool = False) -> Any:
    """A dataclass field that is a setting. ``about`` is one sentence with the unit; ranges include both ends."""
    return dataclasses.field(default=default, metadata={
        'about': about, 'low': low, 'high': high, 'choices': tuple(choices), 'live': live})


def settings_of(settings_class: type, prefix: str = '') -> list[Setting]:
    """Every setting of a dataclass and of the dataclasses inside it, in the order written, with dotted names."""
    hints = get_type_hints(settings_class)
    found: list[Setting] = []
    for field in dataclasses.fields(settings_class):
        if dataclasses.is_dataclass(hints[field.name]):
            found += settings_of(hints[field.name], f'{prefix}{field.name}.')
        elif 'about' in field.metadata:
            default: Any = list(field.default) if isinstance(field.default, tuple) else field.default
            found.append(Setting(name=prefix + field.name, default=default, **field.metadata))
    return found


def check_value(setting: Setting, value: Any) -> str | None:
    """Why a value cannot be a setting's, with what it can be; None when it can."""
    if isinstance(setting.default, bool) != isinstance(value, bool):
        wanted = 'true or false' if isinstance(setting.default, bool) else 'a number or a text'
        return f'{setting.name} is {value!r}; it is {wanted}.'
    if isinstance(setting.default, list):
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            return f'{setting.name} is {value!r}; it is a list of texts.'
        return None
    if isinstance(setting.default, str):
        if not isinstance(value, str):
            return f'{setting.name} is {value!r}; it is a text.'
        if setting.choices and value not in setting.choices:
            return f'{setting.name} is {value!r}; it can be {", ".join(setting.choices)}.'
        return None
    whole = isinstance(setting.default, int) and not isinstance(setting.default, bool)
    if not isinstance(value, (int, float)) or (whole and not float(value).is_integer()):
        return f'{setting.name} is {value!r}; it is a {"whole " if whole else ""}number.'
    low = setting.low if setting.low is not None else float('-inf')
    high = setting.high if setting.high is not None else float('inf')
    if not low <= value <= high:
        return f'{setting.name} is {value}; it can be {low:g} to {high:g}.'
    return None


def read_settings(settings_class: type[Settings], values: Mapping[str, Any], prefix: str = '') -> Settings:
    """Make the dataclass from dotted values; what is not given keeps its default.

    Raises ConfigError for a value outside its range and whatever the dataclass itself refuses. Names that no setting has
    are the caller's to refuse, since one mapping may serve several dataclasses.
    """
    hints = get_type_hints(settings_class)
    declared = {found.name: found for found in settings_of(settings_class, prefix)}
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(settings_class):  # type: ignore[arg-type]
        name = prefix + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            arguments[field.name] = read_settings(hints[field.name], values, f'{name}.')
        elif name in values and name in declared:
            problem = check_value(declared[name], values[name])
            if problem:
                raise ConfigError(problem)
            value = values[name]
            default = field.default
            if isinstance(default, tuple):
                value = tuple(value)
            elif isinstance(default, float):
                value = float(value)
            elif isinstance(default, int) and not isinstance(default, bool):
                value = int(value)
            arguments[field.name] = value
    return settings_class(**arguments)
