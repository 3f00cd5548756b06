"""An agent's folder: written whole, read with every tensor checked.

Part of `worldmodels.agent`; use it from there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from worldmodels import runs
from worldmodels._files import disk_errors
from worldmodels._from_json import from_json
from worldmodels._outputs import FOLDER
from worldmodels.artifacts import (
    file_of_tensors,
    filled,
    pick,
    read_facts,
    read_tensors,
    require_shape,
)
from worldmodels.config import Config, Few, Repeat, show
from worldmodels.controller import linear
from worldmodels.controller.linear import ControllerConfig, InputStats
from worldmodels.dream.config import Ends
from worldmodels.dream.starts import DreamStarts
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.interface import Memory
from worldmodels.memory.kinds import AnyMemoryConfig, build
from worldmodels.memory.rewards import RewardModel
from worldmodels.policies.observations import ObservationShape
from worldmodels.protocols import UserError
from worldmodels.tasks import named
from worldmodels.vision.vae import ConvVAE, VAEConfig

if TYPE_CHECKING:
    from worldmodels.agent import Agent

N = TypeVar("N", bound=nn.Module)

CONFIG = "config.json"
CARD = "README.md"
TEMPLATE = Path(__file__).parent / "agents" / "card.md.j2"
REMEDY = "copy or write the agent again"
PARTS = ("vision", "memory", "controller", "starts")
"""Files of tensors; only the last may be missing."""
SCHEMA = 1
"""Layout of the folder; a reader refuses others."""

OPTIONS = (
    *("env_id", "frame_spec", "action_spec", "reward_model"),
    *("action_repeat", "observation_shape", "ends", "metadata"),
)
"""Keywords of `Agent` that are fields of its config."""


@dataclass(frozen=True, kw_only=True)
class AgentConfig(Config):
    """What `config.json` says of an agent, beside the schema, its files' digests and versions."""

    env_id: str
    dtype: Literal["float16", "float32"] = "float16"
    observation_shape: ObservationShape | None = None
    frame_spec: FrameSpec
    action_spec: ActionSpec
    vision: VAEConfig
    decoder: bool = True
    joined: bool = False
    memory: AnyMemoryConfig
    memories: Few
    controller: ControllerConfig
    reward_model: RewardModel | None
    action_repeat: Repeat = 1
    ends: Ends = Ends()  # noqa: RUF009  # frozen; agents of earlier versions sampled theirs
    metadata: Mapping[str, Any]


class _Part(NamedTuple):
    """A file of tensors."""

    path: Path
    tensors: dict[str, Tensor]

    def network(self, make: Callable[[], N]) -> N:
        return filled(make, self.tensors, self.path, REMEDY)

    def take(self, shapes: Mapping[str, tuple[int, ...]]) -> list[Tensor]:
        """Tensors of these shapes, as float32."""
        found = pick(self.tensors, shapes, self.path, REMEDY)
        for tensor, (name, shape) in zip(found, shapes.items(), strict=True):
            require_shape(tensor, shape, name, self.path)
        return [tensor.float() for tensor in found]


def save(agent: Agent, folder: Path, dtype: str) -> Path:
    """Write all files beside the folder, then put them in its place; a link to it stays.

    Raises:
        UserError: unknown dtype, a number that it cannot hold, a full disk, or a folder that holds
            other contents than an agent.
    """
    vision = agent.vision.joined()
    config = AgentConfig(
        **{name: getattr(agent, name) for name in OPTIONS},
        dtype=dtype,  # type: ignore[arg-type]  # whatever it is, it is checked
        vision=vision.cfg,
        decoder=vision.decoder is not None,
        joined=vision.is_joined,
        memory=agent.memories[0].cfg,
        memories=len(agent.memories),
        controller=agent.controller,
    )
    memories = nn.ModuleList(agent.memories)
    parts = {
        "vision": _cast(vision.state_dict(), dtype, "vision"),
        "memory": _cast(memories.state_dict(), dtype, "memory"),
        "controller": {"parameters": torch.from_numpy(agent.parameters)},
    }
    if agent.input_stats is not None:
        parts["controller"] |= agent.input_stats._asdict()
    if agent.starts is not None:
        arrays = {name: torch.from_numpy(getattr(agent.starts, name)) for name in ("z", "h", "c")}
        parts["starts"] = _cast(arrays, dtype, "starts")
    _write(folder, runs.to_jsonable(config), parts)
    return folder


def _cast(tensors: Mapping[str, Tensor], dtype: str, part: str) -> dict[str, Tensor]:
    out = {}
    for name, tensor in tensors.items():
        out[name] = tensor.detach().cpu().to(getattr(torch, dtype)).contiguous()
        if not torch.isfinite(out[name]).all():
            raise UserError(
                f"{part}: tensor {name!r} has numbers that are not finite in {dtype}; "
                "save it as float32, or look at its training"
            )
    return out


def _write(given: Path, config: dict[str, Any], parts: Mapping[str, dict[str, Tensor]]) -> None:
    runs.check_output(given, "the agent's folder", FOLDER)
    folder = Path(os.path.realpath(given))
    if folder.exists() and not (folder / CONFIG).is_file() and any(folder.iterdir()):
        raise UserError(f"{given} holds other files than an agent's; choose an empty folder")
    runs.make_folder(folder.parent)
    token = uuid.uuid4().hex[:12]
    new, old = (folder.with_name(f".{folder.name}-{what}-{token}") for what in ("new", "old"))
    try:
        sums: dict[str, str] = {}
        for part, tensors in parts.items():
            needed = {name: sums[name] for name in ("vision", "memory") if name in sums}
            facts = {"source": {"env_id": config["env_id"]}, "depends": needed}
            data = file_of_tensors(tensors, part, SCHEMA, **facts)
            runs.atomic_write(new / f"{part}.safetensors", data)
            sums[part] = hashlib.sha256(data).hexdigest()
        full = {"schema": SCHEMA, **config, "sha256": sums, "versions": runs.versions()}
        runs.write_json(new / CONFIG, full)
        runs.atomic_write(new / CARD, card(full))
        with disk_errors(given):
            if folder.exists():
                _keep_others(folder, new)
                os.replace(folder, old)
            os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _keep_others(folder: Path, new: Path) -> None:
    """Copy other files than the agent's from the folder that will be replaced."""
    own = {CONFIG, CARD, *(f"{part}.safetensors" for part in PARTS)}
    for entry in folder.iterdir():
        if entry.name not in own:
            copy = shutil.copytree if entry.is_dir() else shutil.copy2
            copy(entry, new / entry.name)


def load(folder: Path) -> dict[str, Any]:
    """The arguments of an `Agent`, read from its folder.

    Raises:
        UserError: a file is missing, damaged, or of another schema; a tensor is of another shape.
    """
    config = read_config(folder)
    cfg = from_json(AgentConfig, config, f"{folder / CONFIG}: ", ignore_unknown=True)
    sums = config["sha256"]
    if not isinstance(sums, dict) or not set(PARTS[:3]) <= set(sums):
        raise UserError(
            f"{folder / CONFIG}: sha256 is {show(sums)}; it must name the files vision, memory and "
            "controller: write the agent again"
        )
    parts = {p: _read(folder, p, sums[p]) for p in PARTS if p in sums}
    vision = parts["vision"].network(lambda: ConvVAE(cfg.vision, cfg.decoder, cfg.joined))
    held = {name.partition(".")[0] for name in parts["memory"].tensors}
    if held != {str(number) for number in range(cfg.memories)}:
        raise UserError(
            f"{folder / CONFIG}: memories is {cfg.memories}, but memory.safetensors holds "
            f"{len(held)}"
        )
    ensemble = parts["memory"].network(
        lambda: nn.ModuleList(build(cfg.memory) for _ in range(cfg.memories))
    )
    memories = [memory for memory in ensemble if isinstance(memory, Memory)]
    sizes = (cfg.vision.z_dim, cfg.memory.hidden_size)
    return {
        "vision": vision,
        "memories": memories,
        "starts": _starts(parts["starts"], memories, *sizes) if "starts" in parts else None,
        **_controller(parts["controller"], cfg.controller, sizes),
        **{name: getattr(cfg, name) for name in OPTIONS},
    }


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config; a missing or damaged one, or of another schema, is a UserError."""
    config = runs.read_json(folder / CONFIG)
    schema = config.get("schema") if isinstance(config, dict) else None
    if str(schema).startswith("driver/"):
        raise UserError(f"{folder} holds a baseline, which has no V, M and C")
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


def _read(folder: Path, part: str, digest: str) -> _Part:
    path = folder / f"{part}.safetensors"
    try:
        file = read_tensors(path, REMEDY)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; the agent's folder is incomplete") from None
    if file.digest != digest:
        raise UserError(f"{path} is not the file that {CONFIG} was written with; copy it again")
    if file.text:  # earlier versions wrote no header
        kind = read_facts(file, dict, path, REMEDY).get("kind")
        if kind != part:
            raise UserError(f"{path} holds {show(kind)}, not {part}; {REMEDY}")
    return _Part(path, file.tensors)


def _controller(part: _Part, cfg: ControllerConfig, sizes: tuple[int, int]) -> dict[str, Any]:
    """C's config, parameters, and the statistics of its inputs where they are normalised."""
    shapes = {"parameters": (linear.num_parameters(cfg, *sizes),)}
    if cfg.normalize:
        shapes |= dict.fromkeys(("mean", "std"), (linear.num_inputs(cfg, *sizes),))
    parameters, *stats = part.take(shapes)
    if stats and not (stats[1] > 0).all():
        raise UserError(f"{part.path}: tensor 'std' must be above 0 everywhere; {REMEDY}")
    stated = InputStats(*stats) if stats else None
    return {"controller": cfg, "parameters": parameters.numpy(), "input_stats": stated}


def _starts(part: _Part, memories: list[Memory], z_dim: int, hidden: int) -> DreamStarts:
    """Recorded states: z (S, Z), h (M, S, H) and c (M, S, C)."""
    (z,) = pick(part.tensors, ("z",), part.path, REMEDY)
    count = len(z) if z.ndim else 0
    if not count:
        raise UserError(f"{part.path} has no recorded states; {REMEDY}")
    each, carry = (len(memories), count), memories[0].carry_size
    states = part.take({"z": (count, z_dim), "h": (*each, hidden), "c": (*each, carry)})
    return DreamStarts(*(tensor.numpy() for tensor in states))


def card(config: Mapping[str, Any]) -> str:
    """The model card: environment, returns, seeds, and number of real frames."""
    import jinja2

    made = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    template = made.from_string(TEMPLATE.read_text(encoding="utf-8"))
    names = ("vision", "memory", "controller", "frame_spec", "action_spec")
    parts = {name: config[name] for name in names}
    who = named(None, str(config["env_id"])).words.agent
    return template.render({"decoder": True, **config, "parts": parts, "who": who})
