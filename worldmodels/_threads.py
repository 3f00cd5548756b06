"""Threads with one core each, for work that is cut into parts.

Torch's own threads share every operation and wait for each other at its end, hundreds of times in a
step of training. Where one of them has lost its core to something else, the others wait as often: a
training with two was then 35 times slower. Parts meet once. What a part computes does not depend on
how many of them run at once, so neither does a result that adds them up in a fixed order.
"""

from __future__ import annotations

import ctypes
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

TRIED_STEPS = 3
"""Steps in which a number of threads is tried."""
TRIED_AGAIN = 20.0
"""Seconds after which the other number is tried again."""


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


def on_one_core(work: Callable[P, R]) -> Callable[P, R]:
    """Decorate a training whose steps are small: several threads would hardly help.

    Its result then does not depend on their number, and nothing that runs beside it stops it.
    """

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with CoreThreads(1):
            return work(*args, **kwargs)

    return run


def with_fastest_threads(steps: Iterable[T]) -> Iterator[T]:
    """Iterate over steps of equal work, with all of torch's threads or with one: what is faster.

    All are, unless something else has a core. Both are tried now and then, so the last digits of
    what the steps compute depend on it.
    """
    import torch

    most = torch.get_num_threads()
    if most == 1:
        yield from steps
        return
    chosen = count = most
    usual, tried = math.inf, list[float]()
    again = began = time.perf_counter()
    try:
        for step in steps:
            torch.set_num_threads(count)
            before = time.perf_counter()
            yield step
            now = time.perf_counter()
            tried.append(now - before)
            if count == chosen and len(tried) >= TRIED_STEPS:
                usual, tried = statistics.median(tried[-TRIED_STEPS:]), []
                if now >= again:  # try the other number
                    count, began = most + 1 - count, now
            elif count != chosen and (len(tried) == TRIED_STEPS or tried[-1] > 2 * usual):
                if statistics.median(tried) < usual:
                    chosen = count
                count, tried = chosen, []
                again = now + max(TRIED_AGAIN, 10 * (now - began))
    finally:
        torch.set_num_threads(most)
