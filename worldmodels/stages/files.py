"""The files between stages: V, latents and M, each with all that the next stage must know.

Every file says which environment it is of and, by a digest of its weights, which V: parts that do
not belong together are refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from safetensors.numpy import load_file, save
from torch import Tensor, nn

from worldmodels._shapes import check
from worldmodels._tensors import filled, read_facts, read_tensors
from worldmodels.config import Config, Repeat, from_json
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.store import MANIFEST, EpisodeStore, shard_files
from worldmodels.memory.interface import Memory, MemoryConfig
from worldmodels.memory.kinds import FAMILY, build
from worldmodels.memory.rewards import RewardModel
from worldmodels.protocols import UserError
from worldmodels.runs import (
    atomic_path,
    load_checkpoint,
    save_checkpoint,
    to_jsonable,
    versions,
)
from worldmodels.vision.latents import Latents
from worldmodels.vision.vae import ConvVAE, VAEConfig

REMEDY = "make it again"
SCHEMA = 1
"""Layout of the files; a reader refuses others."""

MAKERS = {"vision": "train-vision", "latents": "encode", "memory": "train-memory"}
"""The command that makes each kind of file."""


class _Vision(TypedDict):
    config: dict[str, Any]
    source: dict[str, Any]
    mirror: NotRequired[bool]
    weights: dict[str, Tensor]


class _Memory(TypedDict):
    config: dict[str, Any]
    source: dict[str, Any]
    reward: dict[str, Any]
    vision: str
    posterior_noise: NotRequired[float]
    weights: list[dict[str, Tensor]]


class _Latents(TypedDict):
    source: dict[str, Any]
    vision: str
    mirror: NotRequired[bool]


@dataclass(frozen=True)
class Source(Config):
    """Where the frames come from: files of different sources never go together."""

    env_id: str
    frame_spec: FrameSpec
    action_spec: ActionSpec
    action_repeat: Repeat = 1

    @classmethod
    def of(cls, store: EpisodeStore) -> Source:
        """The source of a store's episodes."""
        return cls(store.env_id, store.frame_spec, store.action_spec, store.action_repeat)


@dataclass(frozen=True)
class VisionFile:
    """V as `train-vision` leaves it."""

    model: ConvVAE
    source: Source
    mirror: bool = False
    """whether it was trained on horizontal flips too"""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights."""
        return digest_of(self.model)

    def save(self, path: Path) -> None:
        """Write it, atomically."""
        facts = {"config": self.model.cfg, "source": self.source, "mirror": self.mirror}
        _save(path, "vision", weights=self.model.state_dict(), **facts)

    @classmethod
    def load(cls, path: Path) -> VisionFile:
        """Read it; `UserError` names the file if it is missing, damaged or of another kind."""
        content = _load(path, "vision", _Vision)
        cfg = from_json(VAEConfig, content["config"], f"{path}: config.")
        model = filled(lambda: ConvVAE(cfg), content["weights"], path, REMEDY)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's types
        source = from_json(Source, content["source"], f"{path}: source.")
        return cls(model.eval(), source, bool(content.get("mirror", False)))


@dataclass(frozen=True)
class LatentsFile:
    """Latents as `encode` leaves them."""

    latents: Latents
    source: Source
    vision: str
    """digest of the V that made them"""
    mirror: bool = False
    """whether each episode is followed by its horizontal flip"""

    def save(self, path: Path) -> None:
        """Write them, atomically: a safetensors file of `Latents`, the rest as its metadata."""
        facts = {"kind": "latents", "schema": SCHEMA, "source": self.source, "vision": self.vision}
        facts |= {"mirror": self.mirror}
        with atomic_path(path) as temporary:
            self.latents.save(temporary)
            content = json.dumps(to_jsonable({**facts, "versions": versions()}))
            temporary.write_bytes(save(load_file(temporary), {"worldmodels": content}))

    @classmethod
    def load(cls, path: Path) -> LatentsFile:
        """Read them; `UserError` names the file if it is missing, damaged or of another kind."""
        if not path.is_file():
            raise UserError(f"there is no file {path}; `worldmodels encode` makes one")
        file = read_tensors(path, "encode again")
        facts = read_facts(file, dict, path, "encode again")
        _check_kind(path, facts, "latents")
        check(facts, _Latents, str(path))
        latents = Latents.of(file.tensors, path, "encode again")
        source = from_json(Source, facts["source"], f"{path}: source.")
        return cls(latents, source, facts["vision"], facts.get("mirror", False))


@dataclass(frozen=True)
class MemoryFile:
    """M, one or an ensemble, as `train-memory` leaves it."""

    models: Sequence[Memory]
    reward: RewardModel
    source: Source
    vision: str
    """digest of the V whose latents it knows"""
    posterior_noise: float = 1.0
    """share of V's posterior deviation that was sampled into z in its training"""

    def save(self, path: Path) -> None:
        """Write it, atomically."""
        weights = [model.state_dict() for model in self.models]
        facts = {"source": self.source, "vision": self.vision, "reward": self.reward}
        facts |= {"posterior_noise": self.posterior_noise}
        _save(path, "memory", config=self.models[0].cfg, weights=weights, **facts)

    @classmethod
    def load(cls, path: Path) -> MemoryFile:
        """Read it; `UserError` names the file if it is missing, damaged or of another kind."""
        content = _load(path, "memory", _Memory)
        record, where = content["config"], f"{path}: config."
        cfg: MemoryConfig = from_json(FAMILY.pick(record, where), record, where)
        models = [
            filled(lambda: build(cfg), weights, path, REMEDY).eval()
            for weights in content["weights"]
        ]
        if not models:
            raise UserError(f"{path} holds no M; {REMEDY}")
        reward = from_json(RewardModel, content["reward"], f"{path}: reward.")
        source = from_json(Source, content["source"], f"{path}: source.")
        noise = float(content.get("posterior_noise", 1.0))
        return cls(models, reward, source, content["vision"], noise)


def load_latents(paths: Sequence[Path]) -> list[LatentsFile]:
    """Several files of latents, in the order given.

    Raises:
        UserError: one cannot be read, or they are of different environments or Vs, or only some of
            them have horizontal flips.
    """
    files = [LatentsFile.load(path) for path in paths]
    for path, file in zip(paths, files, strict=True):
        require_same(path, file.source, paths[0], files[0].source)
        require_vision(path, file.vision, paths[0], files[0].vision)
        if file.mirror != files[0].mirror:
            raise UserError(
                f"{path} has mirror {file.mirror}, but {paths[0]} has {files[0].mirror}; encode "
                "both alike"
            )
    return files


def load_memories(paths: Sequence[Path]) -> list[MemoryFile]:
    """Several files of M, in the order given, all of one shape.

    Raises:
        UserError: one cannot be read, or they do not go together.
    """
    files = [MemoryFile.load(path) for path in paths]
    for path, file in zip(paths, files, strict=True):
        require_same(path, file.source, paths[0], files[0].source)
        require_vision(path, file.vision, paths[0], files[0].vision)
        mine, other = file.models[0].cfg, files[0].models[0].cfg
        if mine != other:
            raise UserError(f"{path} holds {mine}, but {paths[0]} holds {other}; one shape dreams")
    return files


def episode_folders(given: Sequence[Path]) -> list[Path]:
    """Folders of shards: those given, or what lies in them where they hold several collections.

    Raises:
        UserError: one does not exist or has no episodes.
    """
    found = []
    for folder in given:
        inside = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
        if not folder.is_dir():
            raise UserError(
                f"there is no folder of episodes {folder}; `worldmodels collect` makes one"
            )
        found += [folder] if shard_files(folder) or not inside else inside
    return found


def require_same(path: Path, source: Source, other_path: Path, other: Source) -> None:
    """Refuse files of different environments, frames or actions."""
    for field in dataclasses.fields(Source):
        mine, theirs = getattr(source, field.name), getattr(other, field.name)
        if mine != theirs:
            raise UserError(
                f"{path} has {field.name} {mine}, but {other_path} has {theirs}; "
                "all files must come from one environment"
            )


def require_vision(path: Path, vision: str, other_path: Path, other: str) -> None:
    """Refuse files that know different Vs."""
    if vision != other:
        raise UserError(
            f"{path} and {other_path} are of different Vs; encode with one V, "
            "then train M on those latents"
        )


def digest_of(model: nn.Module) -> str:
    """SHA-256 (hex) of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save(path: Path, kind: str, *, weights: Any, **facts: Any) -> None:
    plain = to_jsonable({**facts, "kind": kind, "schema": SCHEMA, "versions": versions()})
    save_checkpoint(path, {**plain, "weights": weights}, kind)


def _load(path: Path, kind: str, holds: type[Any]) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no file {path}; `worldmodels {MAKERS[kind]}` makes one")
    content = load_checkpoint(path)
    _check_kind(path, content, kind)
    check(content, holds, str(path))
    return content


def _check_kind(path: Path, facts: Mapping[str, Any], kind: str) -> None:
    found, schema = facts.get("kind"), facts.get("schema")
    if found != kind:
        what = f"is a file of {found}" if found else "is of another make"
        raise UserError(f"{path} {what}; one of {kind} is needed: `worldmodels {MAKERS[kind]}`")
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {schema!r}, this version reads {SCHEMA}; make it again")
