"""Is a dream's frame like a real one? A trained energy, taken from its run, says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparse_gan.energy import EnergyModel
from sparse_gan.gan.data import check_pixels, check_size, to_signed
from sparse_gan.gan.run import GANArgs, networks
from sparse_gan.gan.tools import anomaly_table
from worldmodels.protocols import UserError
from worldmodels.runs import RunFolder, load_checkpoint


def open_energy(folder: Path) -> tuple[EnergyModel, GANArgs]:
    """The energy of a GAN's run, in evaluation mode, and what it was trained with.

    Raises:
        UserError: no run of a GAN in the folder, or one without a checkpoint.
    """
    run = RunFolder(folder, create=False)
    config: dict[str, Any] = dict(run.read_config()["config"])
    config.pop("log", None)  # changes nothing that is trained
    known = {field.name for field in dataclasses.fields(GANArgs)} - {"log"}
    if set(config) != known:
        raise UserError(f"{folder} is not a GAN's run of this version; `worldmodels gan` makes one")
    config["data"] = tuple(map(Path, config["data"]))
    config |= {"out": folder, "device": "cpu"}  # here, wherever it was trained
    args = GANArgs(**config)
    state = load_checkpoint(run.checkpoints / "gan.safetensors")
    channels = state["generator"]["layers." + _last(state["generator"])].shape[1]
    energy = networks(args, int(channels))[1]
    energy.load_state_dict(state["energy"])
    return energy.eval(), args


def realism(
    folder: Path, real: NDArray[np.uint8], others: Mapping[str, NDArray[np.uint8]]
) -> dict[str, dict[str, float]]:
    """Mean energy of sets of frames, and the chance that one of theirs is above a real one's.

    Args:
        folder: run of a GAN that was trained on such frames.
        real: (B, S, S, C) frames that it has not seen.
        others: sets (B', S, S, C) by name.

    Returns:
        For "real" and each set ``energy`` and ``auroc``: 0.5 is as real as reality, 1 never.

    Raises:
        UserError: frames of another size than the energy's.
    """
    energy, args = open_energy(folder)
    for name, frames in {"real": real, **others}.items():
        check_pixels(frames)
        check_size(frames, args.side, f"the frames of {name}")
    sets = {name: to_signed(frames) for name, frames in others.items()}
    return anomaly_table(energy, to_signed(real), sets)


def _last(weights: Mapping[str, Any]) -> str:
    """Name of the last convolution of G, whose second dimension is the channels of a picture."""
    convolutions = [k.removeprefix("layers.") for k, v in weights.items() if v.ndim == 4]
    return convolutions[-1]
