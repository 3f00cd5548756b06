"""What results and timings depend on: versions of libraries, and the machine.

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
"""Where networks compute: the CPU, or the first GPU that torch sees."""

LIBRARIES = ("torch", "gymnasium", "box2d", "pygame", "numpy", "numba", "cma", "stable-baselines3")
OPTIONAL = ("vizdoom", "ale-py", "minigrid")
"""Packages of environments, whose versions are named where they are installed."""
_OTHER_NAMES = {"box2d": "box2d-py", "pygame": "pygame-ce"}
"""Distributions that some machines have instead."""


def versions() -> dict[str, str]:
    """The versions that a result depends on, by name; "absent" where not installed."""
    from worldmodels import __version__

    found = {"worldmodels": __version__, **{name: _version(name) for name in LIBRARIES}}
    more = {name: _version(name) for name in OPTIONAL}
    found |= {name: number for name, number in more.items() if number != "absent"}
    return {**found, "python": platform.python_version(), "platform": platform.platform()}


def _version(library: str) -> str:
    for distribution in (library, _OTHER_NAMES.get(library, library)):
        try:
            return version(distribution)
        except PackageNotFoundError:
            pass
    return "absent"


def machine(device: Device = "cpu") -> dict[str, Any]:
    """What timings depend on: CPU, cores, memory in GiB, torch's threads, and a GPU if in use."""
    import torch

    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gib": _memory_gib(),
        "threads": torch.get_num_threads(),
        "bfloat16": has_fast_bfloat16(torch.device(device)),
    }
    return found if device == "cpu" else {**found, "gpu": torch.cuda.get_device_name()}


def _memory_gib() -> float | None:
    """The machine's memory; None where the system does not tell, as Windows."""
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _cpu_name() -> str:
    """The CPU's marketing name where the system has it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def require_device(device: str) -> None:
    """Refuse a device that is neither cpu nor cuda, or a GPU that torch does not find."""
    import torch

    if device not in ("cpu", "cuda"):
        raise UserError(f"device is {device!r}; it must be cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no GPU; take cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; torch's emulation is 100 times slower."""
    import torch

    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def mixed_precision(device: torch.device, wanted: bool = True) -> torch.autocast:
    """Autocast to bfloat16 if it is wanted and `has_fast_bfloat16`, else a no-op context.

    Weights are cast where they are used: threads would share what autocast keeps of them.
    """
    import torch

    enabled = wanted and has_fast_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def usable_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
