"""Every figure of README and docs: how it is made, and whether it is up to date."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from scripts.figures import charts, diagrams, frames, gallery, lab, planning, tasks
from scripts.figures.style import RESULTS, ROOT

IMAGES = ROOT / "docs/images"
DIGESTS = IMAGES / "figures.json"
_HERE = ROOT / "scripts/figures"
_PLUMBING = {
    *("worldmodels.agent", "worldmodels.envs", "worldmodels.evaluation"),
    *("worldmodels.memory.interface", "worldmodels.policies.opening"),
    *("worldmodels.protocols", "worldmodels.runs"),
}
"""Modules that figures import but whose changes no picture shows."""
_AGENT, _DODGER = (
    tuple(sorted((ROOT / "worldmodels/agents" / name).glob("*.safetensors")))
    for name in ("car-racing", "take-cover")
)


class Made(NamedTuple):
    """How a figure is made."""

    draw: Callable[[Path], None]
    data: Sequence[Path] = ()
    """files or folders that it shows"""

    def digest(self) -> str:
        """SHA-256 (hex) of the code that draws it and of its data.

        The code is the file of `draw` and the common style, with the modules of the project that
        either imports. What those compute from an agent's weights is held by their own tests.
        """
        code = (Path(sys.modules[self.draw.__module__].__file__ or ""), _HERE / "style.py")
        used = sorted({path for file in code for path in imported(file)})
        found = hashlib.sha256()
        for path in (*code, *used, *self.data):
            inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            for file in inside:
                found.update(file.relative_to(ROOT).as_posix().encode() + b"\0")
                found.update(hashlib.sha256(file.read_bytes()).digest())
        return found.hexdigest()


def imported(file: Path) -> set[Path]:
    """Files of the project's modules that a file imports by `from`, `_PLUMBING` left out."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
            if name.startswith(("worldmodels.", "sparse_gan.", "baselines.")):
                place = _place(name)
                if name not in _PLUMBING and place is not None:
                    found.add(place)
    return found


def _place(name: str) -> Path | None:
    """The file of a module, None for a name inside one."""
    path = ROOT.joinpath(*name.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)


def _committed(*names: str) -> tuple[Path, ...]:
    return tuple(RESULTS / name for name in names)


_METHODS = _committed(*charts.FULL, *charts.QUICK, "2026-11-26-baselines")
FIGURES: dict[str, Made] = {
    **{f"badge-{name}.svg": Made(diagrams.draw_badge) for name in diagrams.BADGES},
    "drive-and-dream.webp": Made(frames.draw_film, _AGENT),
    "dodge-and-dream.webp": Made(frames.draw_film, _DODGER),
    "system.svg": Made(diagrams.draw_system),
    "stages.svg": Made(diagrams.draw_stages),
    "return-by-frames.svg": Made(charts.draw_return_by_frames, _METHODS),
    "returns.svg": Made(charts.draw_returns, _METHODS),
    "methods.svg": Made(charts.draw_methods, _METHODS),
    "scaling.svg": Made(charts.draw_scaling, _committed("cluster.json")),
    "entries.svg": Made(charts.draw_entries, _committed(*(name for _, name, _ in charts.ENTRIES))),
    "temperatures.svg": Made(charts.draw_temperatures, _committed(charts.TEMPERATURES)),
    "lista.svg": Made(charts.draw_lista, _committed("2026-11-24-sparse/lista.json")),
    "reconstructions.png": Made(frames.draw_reconstructions, _AGENT),
    "dream.png": Made(frames.draw_dream_strip, _AGENT),
    "mixture.svg": Made(frames.draw_mixture, _AGENT),
    **{f"gallery/car-racing-{p}.webp": Made(gallery.draw_piece, _AGENT) for p in gallery.PIECES},
    "planning-unrolled.svg": Made(planning.draw_unrolled),
    "planning-energy.svg": Made(planning.draw_energy),
    "atoms.png": Made(lab.draw_atoms),
    "ista.svg": Made(lab.draw_ista),
    "dirac.svg": Made(lab.draw_dirac),
    "check-cart-pole.png": Made(tasks.draw_check),
    "tasks.png": Made(tasks.draw_sheet),
    **{f"task-{name}.png": Made(tasks.draw_task) for name in tasks.TASKS},
}
"""File in docs/images -> how it is made."""


def stale(names: Sequence[str] = tuple(FIGURES)) -> list[str]:
    """Figures whose code or data changed since they were drawn, or that are not there."""
    drawn = json.loads(DIGESTS.read_text(encoding="utf-8")) if DIGESTS.is_file() else {}
    return [
        name
        for name in names
        if not (IMAGES / name).is_file() or drawn.get(name) != FIGURES[name].digest()
    ]
