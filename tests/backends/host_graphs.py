"""A stand-in for CUDA graphs on the CPU: it repeats recorded operations on the recorded tensors, and is as strict.

What a CUDA graph cannot record is refused while recording: a number read back by the host, a shape that depends on values, a
copy from host to device. What a CUDA graph does not do is not done either: Python does not run again on replay, and nothing
is computed while recording.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
NOT_RECORDED = {aten.item.default: 'reads a number back', aten._local_scalar_dense.default: 'reads a number back',
                aten.is_nonzero.default: 'reads a number back', aten.nonzero.default: 'makes a shape from values',
                aten.masked_select.default: 'makes a shape from values', aten.lift_fresh.default: 'copies from the host'}


class HostRecorder:
    """Keeps penguin_ros.backends.torch_graphs.Recorder."""

    def __init__(self) -> None:
        self.recordings = 0
        self.replays = 0

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        work()
        with _Recording() as recording:
            result = work()
        self.recordings += 1
        for tensor in recording.made:
            if tensor.is_floating_point():
                tensor.fill_(float('nan'))      # a recording computes nothing

        def replay() -> None:
            self.replays += 1
            recording.replay()
        return replay, result


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.made: list[Tensor] = []
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert func not in NOT_RECORDED, f'{func} {NOT_RECORDED[func]}: a CUDA graph cannot record it'
        if func is aten.index.Tensor:
            assert all(index is None or index.dtype != torch.bool for index in args[1]), 'a mask makes a shape from values'
        assert kwargs.get('device') is None or func is not aten._to_copy.default, 'a copy between devices is not recorded'
        result = func(*args, **kwargs)
        read = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        made = [tensor for tensor in tree_leaves(result)
                if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in read]
        self.made += made
        self._calls.append((func, args, kwargs, made))
        return result

    def replay(self) -> None:
        """The same operations on the same tensors, results where they were."""
        for func, args, kwargs, made in self._calls:
            again = func(*args, **kwargs)
            for tensor, value in zip(made, (one for one in tree_leaves(again) if isinstance(one, Tensor))):
                tensor.copy_(value)
