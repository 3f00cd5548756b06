"""Threads with one core each, for work that is cut into parts.

Torch's own threads share every operation and wait for each other at its end, hundreds of times in a
step of training. Where one of them has lost its core to something else, the others wait as often: a
training with two was then 35 times slower. Parts meet once. What a part computes does not depend on
how many of them run at once, so neither does a result that adds them up in a fixed order.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

T = TypeVar("T")
R = TypeVar("R")


@cache
def _libraries() -> Any:
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Let numpy's linear algebra use one thread: with more its last digits differ.

    On a busy machine it is faster, too: two threads took 6 s for the eigenvectors of an 867 x 867
    matrix where one takes 0.14.
    """
    context: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return context


@cache
def keep_freed_memory() -> None:
    """Let the process keep what it frees, in one heap for all threads; without effect beyond glibc.

    Tensors of a step of training are as large as those of the next one. As glibc is set they go
    back to the system and come again page by page, which took a fifth of V's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in _MALLOC.items():
            mallopt(option, value)


_MALLOC = {-1: 1 << 30, -2: 1 << 26, -3: 1 << 30, -8: 1}
"""M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD and M_ARENA_MAX of <malloc.h>."""


class CoreThreads:
    """Some threads within a `with` block; one is the caller's own.

    In the block torch computes every operation on the thread that asks for it.
    """

    def __init__(self, count: int) -> None:
        """Start nothing yet."""
        self.count = count
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> CoreThreads:
        """Start the threads, if there are to be several."""
        import torch

        self._before = torch.get_num_threads()
        torch.set_num_threads(1)
        if self.count > 1:
            self._pool = ThreadPoolExecutor(self.count, "core", torch.set_num_threads, (1,))
        return self

    def __exit__(self, *error: object) -> None:
        """End them; torch's own number of threads is as it was."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        import torch

        torch.set_num_threads(self._before)

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results in the items' order; a few items are taken before they are needed."""
        if self._pool is None:
            yield from map(work, items)
            return
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(self._pool.submit(work, item))
            if len(waiting) > 2 * self.count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
