"""Empty stand-ins for heavy libraries, so that help needs no torch.

Help is read off the classes of the configurations, which lie beside networks and compiled kernels.
To see the classes, what they compute with may be missing: documentation tools mock such imports in
the same way (`autodoc_mock_imports` in Sphinx).
"""

from __future__ import annotations

import sys
from abc import ABCMeta
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

HEAVY = frozenset(
    "torch numba scipy cma matplotlib PIL rich safetensors zstandard imageio_ffmpeg "
    "stable_baselines3 sb3_contrib".split()
)
OURS = frozenset({"worldmodels", "baselines", "sparse_gan"})


def _inside(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything


class _AnythingMeta(ABCMeta):
    def __getattr__(cls, name: str) -> Any:
        return _inside(name)


class _Anything(metaclass=_AnythingMeta):
    """Class, function, decorator, number: whatever a module is asked for when it is imported."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return _Anything


class _StandIns(MetaPathFinder, Loader):
    """Finds every heavy library, and puts a module there that holds whatever it is asked for."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.partition(".")[0] in HEAVY else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = _inside  # type: ignore[method-assign]  # as PEP 562 has it
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def stand_ins() -> Iterator[None]:
    """Import stand-ins in place of heavy libraries, and forget at the end whatever saw them."""
    finder, before = _StandIns(), set(sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in HEAVY | OURS:
                del sys.modules[name]
