"""What a result and a timing depend on: versions of libraries, and what the machine does fast.

Part of `worldmodels.runs`; import it from there.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from worldmodels.protocols import UserError

if TYPE_CHECKING:
    import torch

Device: TypeAlias = Literal["cpu", "cuda"]
"""Where networks compute: the processor, or the first GPU that torch sees."""

LIBRARIES = ("torch", "gymnasium", "box2d", "pygame", "numpy", "numba", "cma", "stable-baselines3")
_OTHER_NAMES = {"box2d": "box2d-py", "pygame": "pygame-ce"}
"""Distributions that some machines have in place of these."""


def versions() -> dict[str, str]:
    """Return the versions that a result depends on, by name; "absent" where not installed."""
    from worldmodels import __version__

    found = {"worldmodels": __version__, **{name: _version(name) for name in LIBRARIES}}
    return {**found, "python": platform.python_version(), "platform": platform.platform()}


def _version(library: str) -> str:
    for distribution in (library, _OTHER_NAMES.get(library, library)):
        try:
            return version(distribution)
        except PackageNotFoundError:
            pass
    return "absent"


def machine(device: Device = "cpu") -> dict[str, Any]:
    """Return what timings depend on: processor, cores, memory in GiB, torch's threads.

    And the GPU where that is what computes.
    """
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gib": round(memory, 1),
        "threads": torch.get_num_threads(),
        "bfloat16": has_fast_bfloat16(torch.device(device)),
    }
    return found if device == "cpu" else {**found, "gpu": torch.cuda.get_device_name()}


def _cpu_name() -> str:
    """Return the processor's marketing name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def require_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        UserError: it is neither cpu nor cuda, or torch finds no GPU.
    """
    import torch

    if device not in ("cpu", "cuda"):
        raise UserError(f"device is {device!r}; it must be cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no GPU; take cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware.

    Without it torch still computes, at a hundredth of the speed of float32.
    """
    import torch

    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def mixed_precision(device: torch.device, wanted: bool = True) -> torch.autocast:
    """Autocast to bfloat16 if it is wanted and `has_fast_bfloat16`; else a context of no effect."""
    import torch

    enabled = wanted and has_fast_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def usable_cores() -> int:
    """Return the number of cores this process may use, where the system limits it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
