"""`run`, the commands of single stages and the numbered scripts: one body, the same numbers."""

from __future__ import annotations

import dataclasses
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.pipeline.worker import tiny
from worldmodels import cli
from worldmodels.agent import Agent
from worldmodels.experience.store import EpisodeStore
from worldmodels.pipeline import run_pipeline
from worldmodels.pipeline.iteration import Iteration
from worldmodels.presets import PRESETS
from worldmodels.run_config import DEFAULT_ENV, RunConfig
from worldmodels.runs import RunFolder, read_json
from worldmodels.stages import (
    Candidates,
    LatentsFile,
    MemoryFile,
    VisionFile,
)

SEED = 3
SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "scripts").glob("[1-6]_*.py"))
AGENT_FILES = ("vision", "memory", "controller", "starts")


def several(env_id: str = DEFAULT_ENV) -> RunConfig:
    """Two iterations with every setting by which the newest one counts more."""
    cfg = tiny()
    return dataclasses.replace(
        cfg,
        experience=dataclasses.replace(cfg.experience, agent_snapshots="selected"),
        memory=dataclasses.replace(cfg.memory, newest_repeats=2),
        starts=dataclasses.replace(
            cfg.starts, newest_weight=3.0, off_track_weight=8.0, off_track_streak=3
        ),
    )


def single(env_id: str = DEFAULT_ENV) -> RunConfig:
    """One iteration of it."""
    return dataclasses.replace(several(), iterations=1)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two iterations."""
    out = tmp_path_factory.mktemp("ran")
    run_pipeline(several(), out, seed=SEED, workers=1)
    return out


@pytest.fixture(autouse=True)
def preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "several", several)
    monkeypatch.setitem(PRESETS, "single", single)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def command(name: str, *words: object) -> None:
    assert cli.main([name, *map(str, words)]) == 0


def train(name: str, *words: object) -> None:
    command(name, "--preset", "several", "--seed", SEED, *words)


def same_weights(found: torch.nn.Module, wanted: torch.nn.Module) -> None:
    mine, theirs = found.state_dict(), wanted.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def same_latents(*paths: Path) -> None:
    found, wanted = (LatentsFile.load(path).latents for path in paths)
    for name in ("mu", "logvar", "action", "reward", "terminated", "offsets", "seeds"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_the_commands_do_what_the_first_iteration_does(ran: Path, tmp_path: Path) -> None:
    first = Iteration(0, ran / "iterations" / "00")
    data, v, z, m = (tmp_path / name for name in ("episodes", "v.pt", "z.safetensors", "m.pt"))
    train("collect", "--out", data, "--workers", "1")
    train("train-vision", "--data", data, "--out", v)
    command("encode", "--data", data, "--vision", v, "--out", z)
    train("train-memory", "--latents", z, "--out", m)
    parts = ["--vision", v, "--memory", m, "--latents", z]
    train("train-controller", *parts, "--out", tmp_path / "a")
    same_weights(VisionFile.load(v).model, VisionFile.load(first.vision).model)
    same_latents(z, first.latents(0))
    same_weights(MemoryFile.load(m).models[0], first.load_memory().models[0])
    snapshots = Candidates.load(first.candidates).snapshots
    agent, last = Agent.from_pretrained(tmp_path / "a"), max(snapshots)
    np.testing.assert_array_equal(agent.parameters, snapshots[last])
    for name in ("vision", "memory", "starts"):
        mine, theirs = (folder / f"{name}.safetensors" for folder in (tmp_path / "a", first.agent))
        assert mine.read_bytes() == theirs.read_bytes()
    words = ["--env", tiny().env_id, "--episodes", "2", "--seed", tiny().selection.seed]
    words += ["--max-steps", "20", "--workers", "1", "--json", tmp_path / "e.json"]
    command("evaluate", "--agent", tmp_path / "a", *words)
    returns = [episode["return"] for episode in read_json(tmp_path / "e.json")["episodes"]]
    rows = RunFolder(ran).metrics("selection")
    (row,) = [r for r in rows if (r["iteration"], r["generation"]) == (0, last)]
    assert returns == row["real_returns"]


def test_the_commands_do_what_a_later_iteration_does(ran: Path, tmp_path: Path) -> None:
    first, second = (Iteration(n, ran / "iterations" / f"0{n}") for n in (0, 1))
    episodes = sorted((ran / "experience").iterdir())
    v0, m0, z0 = tmp_path / "v0.pt", tmp_path / "m0.pt", tmp_path / "z0.safetensors"
    v1, m1, z1 = tmp_path / "v1.pt", tmp_path / "m1.pt", tmp_path / "z1.safetensors"
    train("collect", "--agent", first.agent, "--out", tmp_path / "again", "--workers", "1")
    seeds = [
        [record.entry.seed for record in EpisodeStore(folder).episodes]
        for folder in (tmp_path / "again", episodes[1])
    ]
    assert seeds[0] == seeds[1]
    train("train-vision", "--data", episodes[0], "--out", v0)
    train("train-vision", "--data", *episodes, "--init", v0, "--out", v1)
    same_weights(VisionFile.load(v1).model, VisionFile.load(second.vision).model)
    command("encode", "--data", episodes[0], "--vision", v0, "--out", z0)
    train("train-memory", "--latents", z0, "--out", m0)
    for data, z in zip(episodes, (z0, z1), strict=True):
        command("encode", "--data", data, "--vision", v1, "--out", z)
    train("train-memory", "--latents", z0, z1, "--init", m0, "--out", m1)
    same_weights(MemoryFile.load(m1).models[0], second.load_memory().models[0])
    parts = ["--vision", v1, "--memory", m1, "--latents", z0, z1, "--init", first.agent]
    train("train-controller", *parts, "--out", tmp_path / "a")
    snapshots = Candidates.load(second.candidates).snapshots
    agent = Agent.from_pretrained(tmp_path / "a")
    np.testing.assert_array_equal(agent.parameters, snapshots[max(snapshots)])


def test_the_scripts_do_what_a_run_of_one_iteration_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pipeline(single(), tmp_path / "run", seed=SEED, workers=1)
    monkeypatch.chdir(tmp_path)
    for path in SCRIPTS:
        words = [] if "encode" in path.name else ["--preset", "single", "--seed", str(SEED)]
        words += ["--workers", "1"] if path.name[0] in "16" else []
        monkeypatch.setattr(sys, "argv", [str(path), *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(path), run_name="__main__")
        assert end.value.code == 0, path.name
    staged, run = tmp_path / "runs" / "staged", tmp_path / "run"
    for name in AGENT_FILES:
        mine, theirs = (load_file(p / "agent" / f"{name}.safetensors") for p in (staged, run))
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    found = Candidates.load(staged / "candidates.safetensors")
    wanted = Candidates.load(run / "iterations" / "00" / "controllers.safetensors")
    assert found.dreamed == wanted.dreamed
    returns = [
        [episode["return"] for episode in read_json(folder / "evaluation.json")["episodes"]]
        for folder in (staged, run)
    ]
    assert returns[0] == returns[1]
    ledgers = [RunFolder(folder).ledger.read()["totals"] for folder in (staged, run)]
    assert ledgers[0] == ledgers[1]
