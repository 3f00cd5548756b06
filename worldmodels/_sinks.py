"""Where metrics go beside `metrics.jsonl`: TensorBoard and Weights & Biases.

Part of `worldmodels.runs`; import it from there. A sink takes the same records, and is opened by
the first one.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

from worldmodels.protocols import UserError, install_extra

SinkName: TypeAlias = Literal["tensorboard", "wandb"]
Log: TypeAlias = tuple[SinkName, ...]
"""The option ``--log``."""

COUNTERS = ("step", "generation", "epoch")
"""What a record counts, the first that it has."""


class Sink(Protocol):
    """Receives the lines of `metrics.jsonl`."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Take one line, as it stands in the file."""


def sinks(names: Sequence[SinkName], folder: Path) -> tuple[Sink, ...]:
    """The sinks of a run folder; `UserError` for one whose package is not installed."""
    for name in names:
        if name not in get_args(SinkName):
            raise UserError(f"log is {name!r}, must be one of {', '.join(get_args(SinkName))}")
        package = importlib.util.find_spec(name)
        if package is None or package.origin is None:  # a folder of this name has no origin
            raise UserError(
                f"--log {name} needs a package that is not installed: "
                f"{install_extra(name)} (metrics.jsonl has the same figures)"
            )
    made: dict[str, type[TensorBoard | WandB]] = {"tensorboard": TensorBoard, "wandb": WandB}
    return tuple(made[name](folder) for name in dict.fromkeys(names))


def scalars(record: Mapping[str, Any]) -> tuple[str, int | None, int, dict[str, float]]:
    """What can be drawn of a record: (what, iteration, step, figures).

    The iteration is None where the record counts nothing of its own; then the step is the
    iteration. An ensemble's member and a named stage are part of what is logged.
    """
    what, iteration = str(record["stage"]), record.get("iteration")
    for part in ("name", "member"):
        if record.get(part) is not None:
            what += f" {record[part]}"
    counter = next((name for name in COUNTERS if record.get(name) is not None), None)
    skipped = ("time", "iteration", "member", counter)
    figures = {
        name: float(value)
        for name, value in record.items()
        if name not in skipped and isinstance(value, int | float)
    }
    if counter is None:
        return what, None, int(iteration or 0), figures
    return what, iteration, int(record[counter]), figures


class TensorBoard:
    """Events in the folder ``tensorboard`` of a run; an iteration is a line of its own."""

    def __init__(self, folder: Path) -> None:
        """Name the run folder."""
        self.folder = folder / "tensorboard"
        self._writers: dict[str, Any] = {}

    def write(self, record: Mapping[str, Any]) -> None:
        """Write a record's figures and flush them."""
        what, iteration, step, figures = scalars(record)
        name = "." if iteration is None else f"iteration-{iteration:02d}"
        if name not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            self._writers[name] = SummaryWriter(str(self.folder / name))
        for key, value in figures.items():
            self._writers[name].add_scalar(f"{what}/{key}", value, step, record.get("time"))
        self._writers[name].flush()


class WandB:
    """A run of Weights & Biases, kept in the folder ``wandb`` of the run folder.

    It is offline unless the environment variable WANDB_MODE says otherwise; `wandb sync` uploads
    it. A resumed run is another one of the same group.
    """

    def __init__(self, folder: Path) -> None:
        """Name the run folder."""
        self.folder = folder

    @cached_property
    def run(self) -> Any:
        """The run, begun by the first record."""
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":  # which would still report errors to its makers
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        name = self.folder.absolute().name
        return wandb.init(
            project="worldmodels",
            name=name,
            group=name,
            dir=str(self.folder),
            mode=mode,
            settings=wandb.Settings(console="off", silent=True),
        )

    def write(self, record: Mapping[str, Any]) -> None:
        """Log a record's figures, over a step of their own."""
        what, iteration, step, figures = scalars(record)
        place = what if iteration is None else f"{what}, iteration {iteration}"
        self.run.define_metric(f"{place}/*", step_metric=f"{place}/step")
        self.run.log({f"{place}/step": step} | {f"{place}/{k}": v for k, v in figures.items()})
