"""A CUDA graph on the CPU: what a call asks of torch is recorded, and asked again.

It refuses what a GPU's capture refuses: looking at values, and tensors made from numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LOOKS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.masked_select.default,
}


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Recorder(TorchDispatchMode):
    """Runs operations and keeps them, with the values of what they found."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.found: dict[int, tuple[Tensor, Tensor]] = {}
        """tensors that outlive the call, by their memory, and their values before"""
        self._made: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        by_mask = "index" in func.__name__ and any(x.dtype == torch.bool for x in tensors(args[1]))
        if func in LOOKS or by_mask:
            raise RuntimeError(f"a graph cannot look at values: {func}")
        for tensor in tensors((args, kwargs)):
            at = tensor.untyped_storage().data_ptr()
            if at not in self._made and at not in self.found:
                whole = tensor.detach().as_strided(
                    (tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0
                )
                self.found[at] = whole, whole.clone()
        result = func(*args, **kwargs)
        for tensor in tensors(result):
            at = tensor.untyped_storage().data_ptr()
            if at not in self.found:
                self._made.add(at)
        self.calls.append((func, args, kwargs, result))
        return result

    def undo(self) -> None:
        for tensor, before in self.found.values():
            tensor.copy_(before)


class CpuGraph:
    """Stands in for `worldmodels._graphs.Graph`."""

    made = 0

    def __init__(self, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
        type(self).made += 1
        first, self._recorder = Recorder(), Recorder()
        for recorder in (first, self._recorder):
            with recorder:
                self.result = work(*arguments)
            with torch.no_grad():
                recorder.undo()
        new = set(self._recorder.found) - set(first.found)
        if new:
            values = [self._recorder.found[at][1] for at in new]
            raise RuntimeError(f"a graph cannot copy from the host: {values}")

    def replay(self) -> None:
        with torch._C._AutoDispatchBelowAutograd():  # as it was recorded
            for func, args, kwargs, result in self._recorder.calls:
                again = func(*args, **kwargs)
                for old, new in zip(tensors(result), tensors(again), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> type[CpuGraph]:
    """Make the CPU record, on one thread: others would not be seen."""
    for module in ("_graphs", "_training"):
        monkeypatch.setattr(f"worldmodels.{module}.can_record", lambda device: True)
    monkeypatch.setattr("worldmodels._graphs.Graph", CpuGraph)
    monkeypatch.setattr(CpuGraph, "made", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    return CpuGraph
