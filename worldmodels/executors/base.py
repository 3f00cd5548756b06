"""What all executors share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self, TypeVar

from worldmodels.protocols import UserError

T = TypeVar("T")
R = TypeVar("R")

ONE_THREAD = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "BLOSC_NTHREADS",
)


class WorkerDied(UserError):
    """A worker process ended in the middle of an item, by a signal or for want of memory."""


class Executor(Protocol):
    """Runs a function over items. Use it as a context, and one for as many calls as possible."""

    @property
    def workers(self) -> int:
        """How many items are worked on at once."""
        ...

    def map(self, fn: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[int, R]]:
        """Run `fn` on every item and yield (position, result) in the order of completion.

        Args:
            fn: importable from a module; not a lambda or a local function unless work is
                in-process.
            items: may be lazy; each is taken when a worker is free.

        Raises:
            Exception: whatever `fn` raised, as itself, with a note that names the item.
            WorkerDied: a worker was killed; the item it had is named.
        """
        ...

    def close(self) -> None:
        """End the workers; closing twice does no harm."""
        ...

    def __enter__(self) -> Self:
        """Return itself."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        ...


class ClosingContext:
    """What all executors share: they are contexts that close themselves."""

    def close(self) -> None:
        """Nothing to end."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def naming(index: int, item: object) -> str:
    """Name an item for an error message, shortened if its text is long."""
    text = repr(item)
    return f"while working on item {index}: {text if len(text) <= 300 else text[:300] + '...'}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, as worker processes do, so that in-process floats are the same."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
