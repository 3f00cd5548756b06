"""The files between stages: V, latents and M, each with all that the next stage needs.

Every file names its environment and, by a digest of its weights, its V: parts that do not belong
together are refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from worldmodels._from_json import from_json
from worldmodels._shapes import check
from worldmodels.artifacts import (
    filled,
    load_checkpoint,
    require_finite,
    save_checkpoint,
    weights_digest,
)
from worldmodels.config import Config, Repeat
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.store import EpisodeStore
from worldmodels.memory.interface import Memory
from worldmodels.memory.kinds import AnyMemoryConfig, build
from worldmodels.memory.rewards import RewardModel
from worldmodels.protocols import UserError
from worldmodels.runs import to_jsonable, versions
from worldmodels.vision.latents import Latents
from worldmodels.vision.vae import ConvVAE, VAEConfig

F = TypeVar("F", bound=Config)

REMEDY = "make it again"
SCHEMA = 1
"""Layout of the files; a reader refuses others."""

MAKERS = {"vision": "train-vision", "latents": "encode", "memory": "train-memory"}
"""The command that makes each kind of file."""


@dataclass(frozen=True)
class Source(Config):
    """Where the frames come from: files of different sources are never combined."""

    env_id: str
    frame_spec: FrameSpec
    action_spec: ActionSpec
    action_repeat: Repeat = 1

    @classmethod
    def of(cls, store: EpisodeStore) -> Source:
        """The source of a store's episodes."""
        return cls(store.env_id, store.frame_spec, store.action_spec, store.action_repeat)


@dataclass(frozen=True)
class _VisionFacts(Config):
    config: VAEConfig
    source: Source
    horizontal_flip: bool = False


@dataclass(frozen=True)
class _LatentsFacts(Config):
    source: Source
    vision: str
    horizontal_flip: bool = False


@dataclass(frozen=True)
class _MemoryFacts(Config):
    config: AnyMemoryConfig
    reward: RewardModel
    source: Source
    vision: str
    posterior_noise: float = 1.0


@dataclass(frozen=True)
class VisionFile:
    """V as `train-vision` saves it."""

    model: ConvVAE
    source: Source
    horizontal_flip: bool = False
    """whether it was also trained on horizontal flips"""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights."""
        return weights_digest(self.model)

    def save(self, path: Path) -> None:
        """Write it, atomically."""
        facts = _VisionFacts(self.model.cfg, self.source, self.horizontal_flip)
        _save(path, "vision", facts, self.model.state_dict())

    @classmethod
    def load(cls, path: Path) -> VisionFile:
        """Read it; `UserError` names the file if it is missing, damaged or of another kind."""
        facts, weights = _load(path, "vision", _VisionFacts, dict[str, Tensor])
        model = filled(lambda: ConvVAE(facts.config), weights, path, REMEDY)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's types
        return cls(model.eval(), facts.source, facts.horizontal_flip)


@dataclass(frozen=True)
class LatentsFile:
    """Latents as `encode` saves them."""

    latents: Latents
    source: Source
    vision: str
    """digest of the V that made them"""
    horizontal_flip: bool = False
    """whether each episode is followed by its horizontal flip"""

    def save(self, path: Path) -> None:
        """Write them, atomically."""
        facts = _LatentsFacts(self.source, self.vision, self.horizontal_flip)
        _save(path, "latents", facts, self.latents.tensors())

    @classmethod
    def load(cls, path: Path) -> LatentsFile:
        """Read them; `UserError` names the file if it is missing, damaged or of another kind."""
        facts, tensors = _load(path, "latents", _LatentsFacts, dict[str, Tensor])
        require_finite(tensors, path, "encode again")
        latents = Latents.of(tensors, path, "encode again")
        return cls(latents, facts.source, facts.vision, facts.horizontal_flip)


@dataclass(frozen=True)
class MemoryFile:
    """M, one or an ensemble, as `train-memory` saves it."""

    models: Sequence[Memory]
    reward: RewardModel
    """meaning of their reward heads"""
    source: Source
    vision: str
    """digest of the V whose latents it was trained on"""
    posterior_noise: float = 1.0
    """fraction of V's posterior standard deviation sampled into z in its training"""

    def save(self, path: Path) -> None:
        """Write it, atomically."""
        facts = _MemoryFacts(
            self.models[0].cfg, self.reward, self.source, self.vision, self.posterior_noise
        )
        _save(path, "memory", facts, [model.state_dict() for model in self.models])

    @classmethod
    def load(cls, path: Path) -> MemoryFile:
        """Read it; `UserError` names the file if it is missing, damaged or of another kind."""
        facts, members = _load(path, "memory", _MemoryFacts, list[dict[str, Tensor]])
        models = [
            filled(lambda: build(facts.config), weights, path, REMEDY).eval() for weights in members
        ]
        if not models:
            raise UserError(f"{path} holds no M; {REMEDY}")
        return cls(models, facts.reward, facts.source, facts.vision, facts.posterior_noise)


def load_latents(paths: Sequence[Path]) -> list[LatentsFile]:
    """Several files of latents, in the order given; `UserError` if they do not belong together."""
    files = [LatentsFile.load(path) for path in paths]
    for path, file in zip(paths, files, strict=True):
        require_same(path, file.source, paths[0], files[0].source)
        require_vision(path, file.vision, paths[0], files[0].vision)
        if file.horizontal_flip != files[0].horizontal_flip:
            raise UserError(
                f"{path} has horizontal_flip {file.horizontal_flip}, but {paths[0]} has "
                f"{files[0].horizontal_flip}; encode both alike"
            )
    return files


def load_memories(paths: Sequence[Path]) -> list[MemoryFile]:
    """Several files of M, in the order given; `UserError` if they do not belong together."""
    files = [MemoryFile.load(path) for path in paths]
    for path, file in zip(paths, files, strict=True):
        require_same(path, file.source, paths[0], files[0].source)
        require_vision(path, file.vision, paths[0], files[0].vision)
        mine, other = file.models[0].cfg, files[0].models[0].cfg
        if mine != other:
            raise UserError(f"{path} holds {mine}, but {paths[0]} holds {other}; one shape dreams")
    return files


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


def _save(path: Path, kind: str, facts: Config, weights: Any) -> None:
    header = {"kind": kind, "schema": SCHEMA, "versions": versions(), **to_jsonable(facts)}
    save_checkpoint(path, {**header, "weights": weights}, kind)


def _load(path: Path, kind: str, facts: type[F], weights: Any) -> tuple[F, Any]:
    """The facts of a file of this kind, and its tensors, which are of type ``weights``."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; `worldmodels {MAKERS[kind]}` makes one")
    content = load_checkpoint(path)
    found, schema = content.get("kind"), content.get("schema")
    if found != kind:
        what = f"is a file of {found}" if found else "is of another kind"
        raise UserError(f"{path} {what}; expected one of {kind}: `worldmodels {MAKERS[kind]}`")
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {schema!r}, this version reads {SCHEMA}; {REMEDY}")
    check(content.get("weights"), weights, str(path), "weights")
    return from_json(facts, content, f"{path}: ", ignore_unknown=True), content["weights"]
