"""The areas that are fuzzed: how a case is drawn, and what a reader must make of it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import zstandard
from hypothesis import strategies as st

from tests.experience.fakes import BOX
from tests.fuzz import artefacts, flags, mutations
from tests.fuzz.artefacts import write_tree
from tests.fuzz.guard import Broken, Verdict, call, command, elsewhere
from tests.fuzz.mutations import Change, apply, changes
from worldmodels.experience.store import EpisodeStore
from worldmodels.pages import svg
from worldmodels.policies.opening import open_policy
from worldmodels.protocols import Policy
from worldmodels.runs import RunFolder, load_checkpoint, save_checkpoint
from worldmodels.stages.files import MemoryFile, VisionFile, load_latents


@dataclass(frozen=True)
class Area:
    """One kind of input."""

    cases: st.SearchStrategy[Any]
    """what is tried"""
    check: Callable[[Any], Verdict]
    """what became of a case"""
    untouched: Any
    """a case that changes nothing"""


# --- run folders and the report


def _check_run(change: Change) -> Verdict:
    tree = apply(artefacts.run(), change, {"jsonl": mutations.edited_lines})
    with elsewhere() as here:
        folder = write_tree(tree, here / "run")
        ledger = call(lambda: _use_run(folder))
        page = narrow("report", "--run", folder)
    return "accepted" if ledger == page == "accepted" else "refused"


def _use_run(folder: Path) -> None:
    """What later stages do with a run folder."""
    run = RunFolder(folder, create=False)
    run.read_config()
    run.ledger.add("test", 5, "fuzz")
    run.log("fuzz", value=1)
    run.metrics("fuzz")
    run.forget("fuzz")


# --- comparisons


def _check_compared(change: Change) -> Verdict:
    tree = apply(artefacts.compared(), change, {"jsonl": mutations.edited_lines})
    with elsewhere() as here:
        write_tree(tree, here)
        return narrow("compare", "all.json", "--out", here / "out", "--no-pictures")


def narrow(*words: object) -> Verdict:
    """A command whose page has each chart in one width only, for speed."""
    with mock.patch.dict(svg.FULL, ONE, clear=True), mock.patch.dict(svg.HALF, ONE, clear=True):
        return command(*words)


ONE = {"narrow": 340}


# --- agents


@dataclass(frozen=True)
class AgentCase:
    """A changed agent and what is done with it."""

    change: Change
    signed: bool
    use: str


def _check_agent(case: AgentCase) -> Verdict:
    tree = apply(artefacts.agent(), case.change, {"safetensors": mutations.edited_tensors})
    with elsewhere() as here:
        folder = write_tree(artefacts.sign_agent(tree) if case.signed else tree, here / "agent")
        if case.use == "predict":
            return call(lambda: _predict(folder))
        if case.use == "dream":
            return call(lambda: _dream(folder))
        return command(*_USES[case.use].format(env=BOX, agent=folder).split())


_USES = {
    "evaluate": "evaluate --agent {agent} --env {env} --episodes 1 --max-steps 3 --workers 1",
    "ensemble": "ensemble {agent} {agent} --out both",
    "plan": "plan --agent {agent} --planning.horizon 2 --planning.population 4 --decisions 1 "
    "--planning.iterations 1",
    "collect": "collect --preset smoke --agent {agent} --env-id {env} --episodes 1 --noise 0.1 "
    "--out e --workers 1 --max-steps 3",
}


def _predict(folder: Path) -> None:
    """Whoever drives must drive: numbers within the bounds."""
    driver: Policy = open_policy(folder)
    state, frames = None, np.full((2, 12, 10, 3), 90, np.uint8)
    for _ in range(3):
        action, state = driver.predict(frames, state)
        if not np.isfinite(action).all():
            raise Broken(f"an accepted agent acts {action}")


def _dream(folder: Path) -> None:
    import gymnasium as gym

    env = gym.make("worldmodels/Dream-v0", agent=folder)
    env.reset(seed=1)
    _, reward, *_ = env.step(np.zeros(artefacts.A, np.float32))
    if not np.isfinite(float(reward)):
        raise Broken(f"an accepted agent dreams a reward of {reward}")


# --- shards


@dataclass(frozen=True)
class ShardCase:
    """A changed collection."""

    change: Change
    manifest: bool
    """keep it; otherwise the collection was not finished"""


def _edited_shard(data: bytes, change: Change) -> bytes:
    """A shard with its header edited, or a block changed, and signed again."""
    length = int.from_bytes(data[8:16], "little")
    header, body = data[48 : 48 + length], data[48 + length :]
    if change.tensors == "header":
        return artefacts.sign_shard(mutations.edited(header, change.edits), body)
    record = json.loads(header)
    episode = record["episodes"][change.pick % 2]
    block = change.pick // 2 % len(episode["sizes"])
    at = episode["offset"] + sum(episode["sizes"][:block])
    raw = body[at : at + episode["sizes"][block]]
    if change.tensors == "bomb":
        new = zstandard.ZstdCompressor(write_content_size=bool(change.raw.value % 2)).compress(
            bytes(10 ** (change.raw.value % 9))
        )
    else:
        new = change.raw(raw)
    shift = len(new) - len(raw)
    episode["sizes"][block], episode["crc32"][block] = len(new), zlib.crc32(new)
    record["data_bytes"] += shift
    for other in record["episodes"]:
        other["offset"] += shift if other["offset"] > at else 0
    return artefacts.sign_shard(
        json.dumps(record).encode(), body[:at] + new + body[at + len(raw) :]
    )


def _check_shards(case: ShardCase) -> Verdict:
    tree = apply(artefacts.shards(), case.change, {"shard": _edited_shard})
    if not case.manifest:
        tree = {name: data for name, data in tree.items() if name.endswith(".shard")}
    with elsewhere() as here:
        return call(lambda: _use_store(write_tree(tree, here / "e")))


def _use_store(folder: Path) -> None:
    """What is accepted must be readable, or say which block is not."""
    store = EpisodeStore([folder])
    for index in range(len(store)):
        episode = store.read(index)
        store.action_spec.encode(episode.action)
    next(store.frame_batches(4, 0))


# --- files between stages


def _check_stage_files(change: Change) -> Verdict:
    tree = apply(
        artefacts.stage_files(),
        change,
        {"safetensors": mutations.edited_tensors, "pt": _edited_checkpoint},
    )
    with elsewhere() as here:
        return call(lambda: _use_stage_files(write_tree(tree, here)))


def _edited_checkpoint(data: bytes, change: Change) -> bytes:
    """A checkpoint with what is plain in it edited."""
    with elsewhere() as here:
        path = here / "file.pt"
        path.write_bytes(data)
        state = load_checkpoint(path)
        weights = state.pop("weights")
        plain = change.edits[0](state)
        for edit in change.edits[1:]:
            plain = edit(plain)
        if not isinstance(plain, dict):
            return data[:-1]
        if change.raw.value % 5:
            plain["weights"] = weights
        try:
            save_checkpoint(path, plain)
        except (TypeError, ValueError, UnicodeError):  # nothing that a file can hold
            return data[:-1]
        return path.read_bytes()


def _use_stage_files(folder: Path) -> None:
    import torch

    vision, memory = VisionFile.load(folder / "v.pt"), MemoryFile.load(folder / "m.pt")
    latents = load_latents([folder / "z.safetensors"])[0].latents
    vision.model.encode(torch.zeros(1, 3, 64, 64))
    latents.select(range(latents.num_episodes))
    if not np.isfinite(latents.mu).all():
        raise Broken("latents that are not finite")
    for model in memory.models:
        state = model.initial_state(1)
        model.advance(torch.zeros(1, model.cfg.z_dim), torch.zeros(1, model.cfg.action_size), state)


PLAIN = ("edit",) * 8 + ("bytes",) * 3 + ("text",) * 2 + ("remove", "folder")

SAME = Change(0, "same", (), mutations.Bytes(0.0, "flip", 0), b"")

AREAS = {
    "flags": Area(flags.LINES, flags.check, flags.Line("evaluate", ())),
    "runs": Area(changes(PLAIN), _check_run, SAME),
    "comparisons": Area(changes(PLAIN), _check_compared, SAME),
    "agents": Area(
        st.builds(
            AgentCase,
            changes(PLAIN, ("",) * 5 + ("length", "nan", "inf", "huge")),
            st.sampled_from([True, True, True, False]),
            st.sampled_from([*["predict"] * 4, "dream", *_USES]),
        ),
        _check_agent,
        AgentCase(SAME, True, "predict"),
    ),
    "shards": Area(
        st.builds(
            ShardCase,
            changes(PLAIN, ("header",) * 5 + ("bomb", "block")),
            st.sampled_from([False, False, True]),
        ),
        _check_shards,
        ShardCase(SAME, True),
    ),
    "stage files": Area(
        changes(PLAIN, ("",) * 5 + ("length", "nan", "inf", "huge")), _check_stage_files, SAME
    ),
}
"""All areas by name."""
