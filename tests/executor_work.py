"""Functions for workers to run: they are found by name in a process that was spawned."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import connection

from worldmodels.protocols import UserError


def square(x: int) -> int:
    return x * x


def add(number: int) -> Callable[[int], int]:
    return functools.partial(_add, number)


def _add(number: int, x: int) -> int:
    return number + x


def refuse_seven(x: int) -> int:
    if x == 7:
        raise UserError("no sevens")
    return x


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def pid_then_sleep(seconds: float) -> int:
    time.sleep(0.5 if seconds == 0 else seconds)
    return os.getpid()


def facts(x: int) -> tuple[int, str, bool]:
    return os.getpid(), os.environ["OMP_NUM_THREADS"], "torch" in sys.modules


def die(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "abort":
        os.abort()
    if how == "end":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "exit":
        os._exit(3)


def unpicklable(x: int) -> object:
    return lambda: x


class Odd(Exception):
    """Pickles, and cannot be rebuilt."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("odd")


def raise_unpicklable(x: int) -> None:
    raise Odd(1, 2)


def die_once(path: str) -> str:
    """Kill the worker that makes the file."""
    if not os.path.exists(path):
        open(path, "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return path


def die_often(item: str) -> str:
    """Kill the first workers that have an item, "PATH NUMBER", as many as it says."""
    path, number = item.split()
    with open(path, "a+") as file:
        file.write("x")
        done = file.tell() > int(number)
    if not done:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def stop_once(path: str) -> str:
    """Stop the worker that makes the file."""
    if not os.path.exists(path):
        open(path, "x").close()
        os.kill(os.getpid(), signal.SIGSTOP)
    return path


def folder(x: int) -> str:
    time.sleep(0.2)
    return os.getcwd()


def sleep_in_folder(seconds: float) -> str:
    time.sleep(seconds)
    return os.getcwd()


def gpus(x: int) -> str:
    """GPUs that this process sees."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all")


LARGE = 1 << 26
"""Bytes of an answer that takes many reads."""


def stop_while_answering(path: str) -> bytes:
    """Stop the worker that makes the file when half of its answer is written."""
    if not os.path.exists(path):
        open(path, "x").close()
        write = os.write

        def halfway(descriptor: int, data: bytes) -> int:
            if len(data) > LARGE // 2:
                return write(descriptor, data[: LARGE // 2])
            os.kill(os.getpid(), signal.SIGSTOP)
            return write(descriptor, data)

        connection.Connection._write = staticmethod(halfway)  # type: ignore[attr-defined]  # there
    return bytes(LARGE)


def where(module: str) -> str:
    """File of a module."""
    return str(importlib.import_module(module).__file__)
