"""An agent's folder: written whole, read with every tensor checked.

Part of `worldmodels.agent`; use it from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save as format_tensors
from torch import Tensor, nn

from worldmodels import runs
from worldmodels._files import disk_errors
from worldmodels._outputs import FOLDER
from worldmodels._tensors import pick, read_tensors, require_shape
from worldmodels.config import from_json, show
from worldmodels.protocols import UserError

T = TypeVar("T")

CONFIG = "config.json"
CARD = "README.md"
REMEDY = "copy or write the agent again"
PARTS = ("vision", "memory", "controller", "starts")
"""Files of tensors; only the last may be missing."""
SCHEMA = 1
"""Layout of the folder; a reader refuses others."""

DTYPES = {"float16": torch.float16, "float32": torch.float32}


def cast(tensors: Mapping[str, Tensor], dtype: str, part: str) -> dict[str, Tensor]:
    """Tensors in the dtype of the file.

    Raises:
        UserError: unknown dtype, or a number that it cannot hold.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}")
    out = {}
    for name, tensor in tensors.items():
        out[name] = tensor.detach().cpu().to(DTYPES[dtype]).contiguous()
        if not torch.isfinite(out[name]).all():
            raise UserError(
                f"{part}: tensor {name!r} has numbers that are not finite in {dtype}; "
                "save it as float32, or look at its training"
            )
    return out


def save(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, dict[str, Tensor]]) -> Path:
    """Write all files beside the folder, then put them in its place; a link to it stays."""
    runs.check_output(folder, "the agent's folder", FOLDER)
    given, folder = folder, Path(os.path.realpath(folder))
    if folder.exists() and not (folder / CONFIG).is_file() and any(folder.iterdir()):
        raise UserError(f"{given} holds something else than an agent; choose an empty folder")
    runs.make_folder(folder.parent)
    token = uuid.uuid4().hex[:12]
    new, old = (folder.with_name(f".{folder.name}-{what}-{token}") for what in ("new", "old"))
    try:
        sums = {}
        for part, content in tensors.items():
            data = format_tensors(content)
            runs.atomic_write(new / f"{part}.safetensors", data)
            sums[part] = hashlib.sha256(data).hexdigest()
        full = {"schema": SCHEMA, **config, "sha256": sums, "versions": runs.versions()}
        runs.write_json(new / CONFIG, full)
        runs.atomic_write(new / CARD, card(runs.to_jsonable(full)))
        with disk_errors(given):
            if folder.exists():
                _keep_others(folder, new)
                os.replace(folder, old)
            os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return given


def _keep_others(folder: Path, new: Path) -> None:
    """Copy what is not the agent's own from the folder that is about to be replaced."""
    own = {CONFIG, CARD, *(f"{part}.safetensors" for part in PARTS)}
    for entry in folder.iterdir():
        if entry.name in own:
            continue
        if entry.is_dir():
            shutil.copytree(entry, new / entry.name)
        else:
            shutil.copy2(entry, new / entry.name)


def load(folder: Path, kind: type[T]) -> tuple[T, dict[str, dict[str, Tensor]]]:
    """Read the config, as a dataclass, and every file of tensors that it names, in their own dtype.

    Raises:
        UserError: a file is missing, damaged, or of another schema.
    """
    config = read_config(folder)
    built = from_json(kind, config, f"{folder / CONFIG}: ", ignore_unknown=True)
    sums = config["sha256"]
    if not isinstance(sums, dict) or not {"vision", "memory", "controller"} <= set(sums):
        raise UserError(
            f"{folder / CONFIG}: sha256 is {show(sums)}; it must name the files vision, memory and "
            "controller: write the agent again"
        )
    return built, {p: _read(folder / f"{p}.safetensors", sums[p]) for p in PARTS if p in sums}


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.

    Raises:
        UserError: it is missing, damaged, of another schema, or of something else than an agent.
    """
    config = runs.read_json(folder / CONFIG)
    schema = config.get("schema") if isinstance(config, dict) else None
    if str(schema).startswith("driver/"):
        raise UserError(f"{folder} holds a baseline's driver, which has no V, M and C")
    if schema != SCHEMA:
        raise UserError(
            f"{folder / CONFIG} has schema {schema!r}; this version reads {SCHEMA}: "
            "use the version that wrote it, or write the agent again"
        )
    needed = {"env_id", "memories", "controller", "reward_model", "metadata", "sha256"}
    missing = sorted(needed - set(config))
    if missing and "config" in config:
        raise UserError(
            f"{folder} is a run folder without an agent; finish the run: "
            f"worldmodels run --out {folder}"
        )
    if missing:
        raise UserError(f"{folder / CONFIG} lacks {', '.join(missing)}; write the agent again")
    return dict(config)


def _read(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        file = read_tensors(path, REMEDY)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; the agent's folder is not whole") from None
    if file.digest != digest:
        raise UserError(f"{path} is not the file that {CONFIG} was written with; copy it again")
    return file.tensors


def check_count(tensors: Mapping[str, Tensor], count: int, folder: Path) -> None:
    """Compare the number of memories with what their file holds, before they are built."""
    held = {name.partition(".")[0] for name in tensors}
    if held != {str(number) for number in range(count)}:
        raise UserError(
            f"{folder / CONFIG}: memories is {count}, but memory.safetensors holds {len(held)}"
        )


def assign(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, prefix: str = "") -> None:
    """Give a network the tensors whose names begin with ``prefix``, as float32.

    Raises:
        UserError: a tensor is missing or has another shape; it and both shapes are named.
    """
    state = {}
    for name, wanted in module.state_dict().items():
        found = tensors.get(prefix + name)
        if found is None:
            raise UserError(f"{path} lacks the tensor {prefix + name!r}; write the agent again")
        require_shape(found, tuple(wanted.shape), prefix + name, path)
        state[name] = found.float()
    module.load_state_dict(state, assign=True)


def parameters(tensors: Mapping[str, Tensor], folder: Path) -> Tensor:
    """(N,) C's parameters, float32; `linear.Controllers` refuses another number of them."""
    path = folder / "controller.safetensors"
    (found,) = pick(tensors, ("parameters",), path, REMEDY)
    require_shape(found, (found.numel(),), "parameters", path)
    return found.float()


def input_stats(tensors: Mapping[str, Tensor], width: int, folder: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (I,) of C's inputs, of that width.

    Raises:
        UserError: one is missing, of another shape, or no such number.
    """
    path = folder / "controller.safetensors"
    mean, std = pick(tensors, ("mean", "std"), path, REMEDY)
    for name, tensor in (("mean", mean), ("std", std)):
        require_shape(tensor, (width,), name, path)
    if not (std.float() > 0).all():
        raise UserError(f"{path}: tensor 'std' must be above 0 everywhere; {REMEDY}")
    return mean.float(), std.float()


def starts(
    tensors: Mapping[str, Tensor], widths: Mapping[str, int], memories: int, folder: Path
) -> list[Tensor]:
    """Recorded states: z (S, Z), h (M, S, H) and c (M, S, C), float32; ``widths`` has Z, H and C.

    Raises:
        UserError: one is missing or of another shape, or there are no states.
    """
    path = folder / "starts.safetensors"
    found = dict(zip(widths, pick(tensors, widths, path, REMEDY), strict=True))
    count = len(found["z"]) if found["z"].ndim else 0
    if not count:
        raise UserError(f"{path} has no recorded states; {REMEDY}")
    for name, tensor in found.items():
        shape = (count, widths[name]) if name == "z" else (memories, count, widths[name])
        require_shape(tensor, shape, name, path)
    return [tensor.float() for tensor in found.values()]


def card(config: Mapping[str, Any]) -> str:
    """The model card: what it drives, how well, on which seeds, from how many real frames."""
    metadata = config["metadata"]
    lines = [
        f"# A driver for {config['env_id']}",
        "",
        "A world-model agent: a convolutional VAE (V) sees, a sequence model (M) remembers and",
        "predicts, and a small controller (C) acts on what both know.",
        *([] if config.get("decoder", True) else ["It is stored without V's decoder: to drive."]),
        "",
        "```python",
        "import gymnasium, worldmodels",
        "",
        'driver = worldmodels.open_driver("path/to/this/folder")',
        f"env = gymnasium.make({json.dumps(config['env_id'])})",
        "obs, info = env.reset(seed=1_000_000)",
        "state, over = None, False",
        "while not over:",
        "    action, state = driver.predict(obs, state, deterministic=True)",
        "    obs, reward, terminated, truncated, info = env.step(action)",
        "    over = terminated or truncated",
        "```",
        "",
    ]
    evaluation = metadata.get("evaluation")
    if evaluation:
        lines += ["## Score", "", _score(evaluation), ""]
    ledger = metadata.get("frames")
    if ledger:
        totals = ledger.get("totals", ledger)
        lines += ["## Frames used", "", "| kind | frames |", "|---|---|"]
        lines += [f"| {kind} | {count:,} |" for kind, count in totals.items()] + [""]
    lines += ["## Parts", "", "| part | shape |", "|---|---|"]
    for part in ("vision", "memory", "controller", "frame_spec", "action_spec"):
        shape = ", ".join(f"{k} {v}" for k, v in config[part].items() if v != [])
        lines.append(f"| {part} | {shape} |")
    lines += [f"| memories | {config['memories']} |", "", "## Versions", ""]
    lines += [f"- {name} {version}" for name, version in config["versions"].items()]
    return "\n".join(lines) + "\n"


def _score(evaluation: Mapping[str, Any]) -> str:
    text = f"Mean return {evaluation['mean']:.1f} +- {evaluation['std']:.1f}"
    if "ci95" in evaluation:
        text += " (95% interval of the mean {:.1f} to {:.1f})".format(*evaluation["ci95"])
    episodes = evaluation.get("episodes")
    count = len(episodes) if isinstance(episodes, list) else episodes
    text += f" over {count} episodes"
    seeds = evaluation.get("seeds")
    if seeds:
        text += f", seeds {min(seeds)} to {max(seeds)}"
    return f"{text}, deterministic."
