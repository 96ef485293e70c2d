"""rclpy's lifecycle node, made to keep going when asked for what it cannot do. Knows nothing of what a transition does."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from penguin_ros.core.bus import Message, Setting
from penguin_ros.ros.parameters import in_type_of


class ManagedNode(LifecycleNode):
    """A lifecycle node whose transitions are taken by somebody else: ``take`` is told which."""

    def __init__(self, name: str, take: Callable[[str], TransitionCallbackReturn], settings: Mapping[str, Setting],
                 **arguments: Any) -> None:
        self._take = take
        self._settings = settings       # those declared by now
        self.is_finalized = False
        super().__init__(name, **arguments)
        service = self._service_change_state
        service.callback = functools.partial(self._answer_change_state, service.callback)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._take('configure')

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._take('activate')

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._take('deactivate')

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._take('cleanup')

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.is_finalized = True        # there is no way back, whatever comes of it
        return self._take('cleanup')

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an exception: let go of everything, so that the node can be configured again."""
        return self._take('cleanup')

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """What every request to set parameters comes to; rclpy refuses unknown ones without a name."""
        for parameter in parameter_list:
            if not self.has_parameter(parameter.name):
                return SetParametersResult(successful=False, reason=self.no_such_parameter(parameter.name))
        return super().set_parameters_atomically([self._in_its_type(parameter) for parameter in parameter_list])

    def _in_its_type(self, parameter: Parameter) -> Parameter:
        setting = self._settings.get(parameter.name)
        value = parameter.value if setting is None else in_type_of(setting, parameter.value)
        return parameter if value is parameter.value else Parameter(parameter.name, value=value)

    def no_such_parameter(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._settings, n=1)
        return f'there is no parameter {name}.' + (f' Is {near[0]} meant?' if near else '')

    def _answer_change_state(self, change: Callable[..., Message], request: Message, response: Message) -> Message:
        try:
            return change(request, response)
        except RuntimeError as error:   # a transition the present state does not have: rclpy lets it out, unanswered
            self.get_logger().error(f'no such transition now: {str(error).splitlines()[0]}')
            response.success = False
            return response
