"""A node's declared settings and their values in force. Knows nothing of how they are set from outside (parameters.py)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from penguin_ros.core.bus import Setting
from penguin_ros.core.errors import ConfigError
from penguin_ros.core.settings import check_value

Check = Callable[[Mapping[str, Any]], str | None]
Changed = Callable[[Mapping[str, Any]], None]


class SettingTable:
    """What `Bus.declare` promises. May be used from any thread; callbacks run on the caller's, with no lock held."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        """``given`` are values from a file or the command line, for settings yet to be declared."""
        self._given = dict(given)
        self._settings: dict[str, Setting] = {}
        self._values: dict[str, Any] = {}
        self._watchers: dict[str, tuple[Check, Changed]] = {}
        self._lock = threading.Lock()

    def declare(self, settings: Sequence[Setting], check: Check, changed: Changed) -> dict[str, Any]:
        """Add settings; a value given for one beforehand is taken if it can be. One declared before keeps its value."""
        with self._lock:
            for setting in settings:
                if setting.name not in self._settings:
                    value = self._given.pop(setting.name, setting.default)
                    problem = check_value(setting, value)
                    if problem:
                        raise ConfigError(problem)
                    self._settings[setting.name] = setting
                    self._values[setting.name] = _as_declared(setting, value)
                self._watchers[setting.name] = check, changed
        return self.values()

    def values(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._values)

    def settings(self) -> dict[str, Setting]:
        with self._lock:
            return dict(self._settings)

    def undeclared(self) -> str | None:
        """A sentence about values that were given for settings nobody declared, None if there are none."""
        with self._lock:
            return self._unknown(next(iter(self._given))) if self._given else None

    def change(self, proposed: Mapping[str, Any], *, configured: bool) -> str | None:
        """Set all values, or none and say why."""
        with self._lock:
            problem = next(filter(None, (self._problem(name, value, configured) for name, value in proposed.items())), None)
            if problem:
                return problem
            accepted = {name: _as_declared(self._settings[name], value) for name, value in proposed.items()}
            watchers = dict.fromkeys(self._watchers[name] for name in accepted)
        for check, _ in watchers:
            problem = check(accepted)
            if problem:
                return problem
        with self._lock:
            self._values |= accepted
        for _, changed in watchers:
            changed(accepted)
        return None

    def _problem(self, name: str, value: Any, configured: bool) -> str | None:
        setting = self._settings.get(name)
        if setting is None:
            return self._unknown(name)
        if configured and not setting.live:
            return (f'{name} cannot change while the node is configured. Clean the node up, set it, and configure it again; '
                    'or give it when the node starts.')
        return check_value(setting, value)

    def _unknown(self, name: str) -> str:
        near = get_close_matches(name, self._settings, n=3)
        hint = f'did you mean {" or ".join(near)}?' if near else 'ros2 param list, or penguin run --help, shows what there is.'
        return f'{name} is not a setting of this node; {hint}'


def _as_declared(setting: Setting, value: Any) -> Any:
    """The value in the type of the default: a whole number for a decimal setting becomes one."""
    if isinstance(setting.default, (bool, str)):
        return value
    if isinstance(setting.default, list):
        return list(value)
    return type(setting.default)(value)
