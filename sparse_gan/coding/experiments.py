"""Trainings as commands: method x data -> a run folder with figures, pictures and a page.

The same command again only redraws the page of a finished run.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np

from sparse_gan.coding.methods import METHODS
from sparse_gan.coding.report import build_page
from sparse_gan.coding.setup import SparseArgs
from worldmodels.runs import RunFolder, atomic_path, config_hash, write_json


def train_sparse(args: SparseArgs) -> Path:
    """Train, measure, draw the page, and return its path; a finished run is only redrawn.

    Raises:
        UserError: data that is missing or does not fit the method.
    """
    run = RunFolder(args.run, log=args.log)
    with run.lock():
        inputs = config_hash(dataclasses.replace(args, log=()))
        if not run.stage_done("train", inputs):
            run.forget("train")
            started = time.perf_counter()
            figures, pictures = METHODS[args.method](
                args, lambda **values: run.log("train", **values)
            )
            run.write_config(args)  # only now: settings that cannot be trained leave nothing behind
            figures["seconds"] = round(time.perf_counter() - started, 1)
            with atomic_path(run.path / "pictures.npz") as path:
                np.savez_compressed(path, **pictures)  # type: ignore[arg-type]  # its types want bools
            write_json(run.path / "figures.json", figures)
            made = [run.path / name for name in ("pictures.npz", "figures.json")]
            run.mark_done("train", inputs, figures, made)
        for name, value in run.stage_outputs("train").items():
            print(f"{name:32} {value:.4g}" if isinstance(value, float) else f"{name:32} {value}")
        return build_page(run.path)


__all__ = ["SparseArgs", "train_sparse"]
