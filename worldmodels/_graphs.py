"""Steps of fixed shapes, which a GPU records once as a CUDA graph and then replays.

A GPU computes a step of networks this small in less time than Python needs to ask for its hundreds
of kernels. A graph asks for all of them at once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

R = TypeVar("R")

EAGER_CALLS = 3
"""First calls, which are not recorded: libraries and optimisers allocate what they keep."""


def can_record(device: torch.device) -> bool:
    """Whether a device records graphs."""
    return device.type == "cuda"


class Graph:
    """The kernels of a call, recorded and not run."""

    def __init__(self, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
        """Record them; a RuntimeError where that cannot be done."""
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.result = work(*arguments)
            """what the call returned; each replay writes into its tensors"""

    def replay(self) -> None:
        """Run them on what the arguments hold now."""
        self._graph.replay()


class _Recording(NamedTuple):
    graph: Graph
    inputs: list[Tensor]


class Replayed(Generic[R]):
    """A function on a device; on a GPU its kernels are recorded once for each kind of arguments.

    The function must not look at a tensor's values, nor make tensors from numbers of the host, nor
    draw. It may change tensors that outlive it, such as weights. What it returns is valid until the
    next call.
    """

    def __init__(self, work: Callable[..., R], device: torch.device) -> None:
        """Record nothing yet."""
        self.work, self.device = work, device
        self._eager = EAGER_CALLS if can_record(device) else math.inf
        self._recordings: dict[Hashable, _Recording] = {}

    def __call__(self, *arguments: Any) -> R:
        """Call the function with tensors, of any device, and other arguments.

        Tensors of other shapes, and other values of the other arguments, are other kinds.
        """
        if self._eager > 0:
            self._eager -= 1
            return self.work(*map(self._placed, arguments))
        tensors = [x for x in arguments if isinstance(x, Tensor)]
        kind = tuple((x.shape, x.dtype) if isinstance(x, Tensor) else x for x in arguments)
        recording = self._recordings.get(kind) or self._record(kind, arguments)
        if recording is None:
            return self(*arguments)
        for fixed, new in zip(recording.inputs, tensors, strict=True):
            there = new.device == fixed.device
            fixed.copy_(new if there else new.pin_memory(), non_blocking=True)
        recording.graph.replay()
        result: R = recording.graph.result
        return result

    def _placed(self, argument: Any) -> Any:
        return argument.to(self.device) if isinstance(argument, Tensor) else argument

    def _record(self, kind: Hashable, arguments: Sequence[Any]) -> _Recording | None:
        """Keep a recording; None, and eager calls from then on, where a GPU refuses."""
        fixed = [x.to(self.device, copy=True) if isinstance(x, Tensor) else x for x in arguments]
        try:
            graph = Graph(self.work, fixed)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            print(f"warning: no CUDA graph, so steps are slower: {reason}", file=sys.stderr)
            self._eager = math.inf
            return None
        recording = _Recording(graph, [x for x in fixed if isinstance(x, Tensor)])
        self._recordings[kind] = recording
        return recording
