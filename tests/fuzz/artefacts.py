"""Small valid artefacts of every kind, as trees of bytes: what the mutations begin with."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.experience.fakes import BOX, write_shard
from tests.experience.test_shards import META, random_episode
from tests.fuzz.mutations import Tree
from tests.pages.fixture import make_run
from worldmodels.agent import Agent
from worldmodels.controller.linear import ControllerConfig, num_parameters
from worldmodels.dream.starts import DreamStarts
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.store import MANIFEST
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.rewards import RewardModel
from worldmodels.planning.networks import Actor, Critic, NetworkConfig
from worldmodels.policies.learned import PolicyFile, origin
from worldmodels.runs import write_json
from worldmodels.stages.files import LatentsFile, MemoryFile, Source, VisionFile
from worldmodels.vision.latents import Latents
from worldmodels.vision.vae import ConvVAE, VAEConfig

Z, H, A, S = 2, 4, 2, 3
SPEC = ActionSpec("box", A, (-1.0, 0.0), (1.0, 2.0))
MEMORY = MDNRNNConfig(Z, A, H, 2, reward="raw")
MEMBERS = 2
NETWORK = NetworkConfig(hidden=4, layers=1, components=3, residual=0.2)


def read_tree(folder: Path) -> Tree:
    """The files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_tree(tree: Tree, folder: Path) -> Path:
    """Write a tree into a folder."""
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(content)
    return folder


@lru_cache
def agent() -> Tree:
    """An agent with an ensemble of M, recorded starts, a residual, a critic and an ensemble."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "agent"
        made = _agent()
        made.save_pretrained(folder, dtype="float32")
        kinds = {"residual": NETWORK, "actor-critic": NetworkConfig(hidden=4, layers=1)}
        for kind, cfg in kinds.items():
            actors = (Actor.of(made, cfg), Actor.of(made, cfg))
            critic = Critic(made.z_dim, made.h_dim, cfg)
            file = PolicyFile(actors, critic, kind, origin(made, cfg))
            file.save(folder / f"{kind}.safetensors")
        _agent(seed=1).without_dreams().save_pretrained(folder / "ensemble" / "01")
        return read_tree(folder)


def _agent(seed: int = 0) -> Agent:
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vision = ConvVAE(VAEConfig(z_dim=Z, width=1))
        memories = [MDNRNN(MEMORY) for _ in range(MEMBERS)]
    shape = ControllerConfig.for_action_space(SPEC)
    starts = DreamStarts(
        rng.standard_normal((S, Z), np.float32),
        np.tanh(rng.standard_normal((MEMBERS, S, H), np.float32)),
        rng.standard_normal((MEMBERS, S, H), np.float32),
    )
    return Agent(
        vision,
        memories,
        shape,
        0.3 * rng.standard_normal(num_parameters(shape, Z, H)),
        env_id=BOX,
        frame_spec=FrameSpec(),
        action_spec=SPEC,
        reward_model=RewardModel("raw"),
        starts=starts,
        action_repeat=2,
        metadata={"seed": seed, "versions": {}},
    )


def sign_agent(tree: Tree) -> Tree:
    """The digests in config.json made right, so that readers come to what lies behind them."""
    signed = dict(tree)
    for folder in ("", "ensemble/01/"):
        try:
            config = json.loads(tree[f"{folder}config.json"])
            for part in config["sha256"]:
                data = tree[f"{folder}{part}.safetensors"]
                config["sha256"][part] = hashlib.sha256(data).hexdigest()
        except (KeyError, TypeError, ValueError, RecursionError):
            continue  # the config is what was changed
        signed[f"{folder}config.json"] = json.dumps(config).encode()
    return signed


@lru_cache
def shards() -> Tree:
    """A finished collection of two shards."""
    with tempfile.TemporaryDirectory() as name:
        listed = {}
        for number in range(2):
            episodes = [random_episode(2 * number + k, 33 + k) for k in range(2)]
            shard = write_shard(Path(name) / f"{number}.shard", episodes, {**META, "env_id": BOX})
            listed[shard.path.name] = {"header_sha256": shard.header_sha256, "episodes": 2}
        write_json(Path(name) / MANIFEST, {"shards": listed})
        return read_tree(Path(name))


def sign_shard(header: bytes, body: bytes) -> bytes:
    """A shard of this header and these blocks, with the header's digest right."""
    prefix = b"WMSHARD1" + len(header).to_bytes(8, "little") + hashlib.sha256(header).digest()
    return prefix + header + body


@lru_cache
def run() -> Tree:
    """A run folder with few lines of metrics."""
    with tempfile.TemporaryDirectory() as name:
        folder = make_run(Path(name), tracks=3, media=False)
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        kept = [line for k, line in enumerate(lines) if k % 300 == 0 or _is_rare(line)]
        kept += [json.dumps(row) + "\n" for row in _LATE_ROWS]
        (folder / "metrics.jsonl").write_text("".join(kept))
        flat = json.loads((folder / "config.json").read_text())
        config = {name: flat.pop(name) for name in [*flat] if name not in _AROUND}
        write_json(folder / "config.json", {**flat, "config": config})
        rows = {"best": {"seed": 1_000_000, "return": 1.0, "length": 1000}}
        write_json(folder / "media" / "episodes.json", rows)
        (folder / "media" / "best.mp4").write_bytes(b"\0\0\0\x10tkhd" + bytes(16))
        (folder / "baselines").mkdir()
        os.link(folder / "evaluation_random.json", folder / "baselines" / "ppo.json")
        return read_tree(folder)


_AROUND = ("schema", "versions", "machine")
"""What of `config.json` is about the configuration, not in it."""

_RARE = ("selection", "memory_calibration", "collection", "stage")
_LATE_ROWS: tuple[dict[str, Any], ...] = (
    {"stage": "final", "iteration": 3, "winner": 2},
    {"stage": "residual_selection", "real_mean": 2.0, "controller_mean": 1.0, "kept": True}
    | {"real_returns": [1.0, 2.0]},
    {"stage": "ensemble_selection", "rounds": [1], "real_mean": 2.0, "alone_mean": 1.0}
    | {"real_returns": [1.0, 2.0], "kept": True},
)


def _is_rare(line: str) -> bool:
    row = json.loads(line)
    return row["stage"] in _RARE and row.get("generation", 60) == 60


@lru_cache
def compared() -> Tree:
    """A pipeline's run, a baseline's run, an evaluation, and a list of them."""
    few = {k: v for k, v in run().items() if "/" not in k and k != "evaluation_random.json"}
    tree = {f"ours/{name}": content for name, content in few.items()}
    test = json.loads(run()["evaluation.json"])
    points = [{"real_frames": 10, "seconds": 1.0, "mean": 2.0, "step": 1, "frames": 5}]
    config = {"method": "ppo", "seed": 1, "frames": 100}
    parts: dict[str, Any] = {
        "ppo/config": {"schema": 1, "config": config, "machine": {"cpu": "x", "cores": 2}},
        "ppo/frames": {"entries": [], "totals": {"model_free": 100, "selection": 5}},
        "ppo/curve": {"training_seconds": 9.0, "points": points},
        "ppo/evaluation": test,
        "ppo/evaluation_last": test,
        "random": test,
        "all": {"runs": ["ours", "ppo", "chance=random.json"]},
    }
    return {**tree, **{f"{name}.json": json.dumps(part).encode() for name, part in parts.items()}}


@lru_cache
def stage_files() -> Tree:
    """The files between stages: V, M and latents."""
    source, frames = Source(BOX, FrameSpec(), SPEC), 12
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name, torch.random.fork_rng():
        torch.manual_seed(0)
        vision = VisionFile(ConvVAE(VAEConfig(z_dim=Z, width=1)), source)
        vision.save(Path(name) / "v.pt")
        reward = RewardModel("raw")
        models = [MDNRNN(MEMORY), MDNRNN(MEMORY)]
        MemoryFile(models, reward, source, vision.digest).save(Path(name) / "m.pt")
        latents = Latents(
            mu=rng.standard_normal((frames, Z), np.float32),
            logvar=rng.standard_normal((frames, Z), np.float32),
            action=rng.standard_normal((frames, A), np.float32),
            reward=rng.standard_normal(frames, np.float32),
            terminated=np.array([True, False]),
            offsets=np.array([0, 5, frames], np.int64),
            seeds=np.array([0, 1], np.int64),
        )
        LatentsFile(latents, source, vision.digest).save(Path(name) / "z.safetensors")
        return read_tree(Path(name))
