"""What the Ray executor uses of Ray's interface, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from worldmodels.executors import WorkerDied


class RayTaskError(Exception):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class RayActorError(Exception):
    pass


class Reference:
    """A value or an exception that can be waited for."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome


class Method:
    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method

    def remote(self, function: Reference, item: Any) -> Reference:
        try:
            return Reference(self.method(function.outcome, item))
        except Exception as error:
            return Reference(error)


class Actor:
    def __init__(self, instance: Any) -> None:
        self.run = Method(instance.run)


class FakeRay:
    """The module's functions, and what they were called with."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.killed = self.down = 0

    def is_initialized(self) -> bool:
        return False

    def init(self, **settings: Any) -> None:
        self.settings = settings

    def remote(self, **resources: Any) -> Callable[[Any], Any]:
        class Remote:
            def __init__(self, kind: Any) -> None:
                self.kind = kind

            def remote(self) -> Actor:
                return Actor(self.kind())

        return Remote

    def put(self, value: Any) -> Reference:
        return Reference(value)

    def wait(
        self, references: list[Reference], num_returns: int
    ) -> tuple[list[Reference], list[Reference]]:
        return references[-num_returns:], references[:-num_returns]

    def get(self, reference: Reference) -> Any:
        if isinstance(reference.outcome, WorkerDied):
            raise RayActorError("gone")
        if isinstance(reference.outcome, Exception):
            raise RayTaskError(reference.outcome)
        return reference.outcome

    def kill(self, actor: Actor) -> None:
        self.killed += 1

    def shutdown(self) -> None:
        self.down += 1


def install(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """Make `import ray` find the fake, for one test."""
    fake = FakeRay()
    ray: Any = ModuleType("ray")
    ray.exceptions = exceptions = ModuleType("ray.exceptions")
    for name in ("is_initialized", "init", "remote", "put", "wait", "get", "kill", "shutdown"):
        setattr(ray, name, getattr(fake, name))
    for kind in (RayTaskError, RayActorError):
        setattr(exceptions, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
    return fake
