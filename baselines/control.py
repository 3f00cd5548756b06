"""PPO beside a run: in its environment, from its frames, with as many; its test in the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from baselines import drivers
from baselines.results import LEARNT_FROM
from baselines.settings import TrainConfig
from worldmodels import envs, runs
from worldmodels._from_json import from_json
from worldmodels.config import Count, Repeat, Seed, Size
from worldmodels.envs.frames import FrameSpec
from worldmodels.evaluation import EvaluationResult, evaluate
from worldmodels.pages import build_report
from worldmodels.protocols import UserError

FOLDER = "baselines"
"""Folder in a run's, whose JSON files its report shows."""


class _Test(TypedDict):
    seed: Seed
    max_steps: Count | None


class _Config(TypedDict):
    env_id: str
    test_env_id: str
    action_repeat: Repeat
    frame_rows: Size | None
    crop: NotRequired[Any]
    test: _Test
    seed: NotRequired[Seed]


class _Record(TypedDict):
    config: _Config


class _Ledger(TypedDict):
    totals: dict[str, int]


def beside(cfg: TrainConfig) -> TrainConfig:
    """What ``cfg.run`` says, in the configuration: what it leaves open, and what is fixed.

    Raises:
        UserError: there is no finished run, or it is of another environment than ``cfg`` names.
    """
    assert cfg.run is not None
    if not (cfg.run / "evaluation.json").is_file():
        raise UserError(f"--run is {cfg.run}; it must be the folder of a run that was tested")
    found, source = _read(cfg.run), cfg.run / "config.json"
    if cfg.env_id not in (None, found["env_id"]):
        raise UserError(f"--env is {cfg.env_id!r}, but {cfg.run} is of {found['env_id']!r}")
    totals = runs.read_json(cfg.run / "frames.json", _Ledger)["totals"]
    seed = found.get("seed", 0) if cfg.seed is None else cfg.seed
    own = replace(
        cfg,
        seed=seed,
        env_id=cfg.env_id or envs.from_file(found["env_id"], source),
        frames=cfg.frames or sum(totals.get(kind, 0) for kind in LEARNT_FROM),
        out=cfg.out or cfg.run / FOLDER / f"ppo-{seed}",
        max_steps=found["test"]["max_steps"],
    )
    if cfg.recipe != "default":
        return own
    seen = {"rows": found["frame_rows"], "crop": found.get("crop")}
    frames, held = from_json(FrameSpec, seen, f"{source}: config"), found["action_repeat"]
    return replace(own, action_repeat=held, frame_rows=frames.rows, crop=frames.crop)


def enter(cfg: TrainConfig) -> EvaluationResult:
    """Test what was trained (``cfg`` as from `beside`) on the run's seeds, and show it there.

    The result is ``evaluation.json`` in its own folder and a row of the run's report.
    """
    assert cfg.run is not None
    found, run = _read(cfg.run), runs.RunFolder(cfg.folder)
    trained = run.ledger.read()["totals"]["model_free"]
    env_id = found["test_env_id"]
    same = env_id == found["env_id"]
    target = cfg.run / FOLDER / f"{cfg.folder.name}.json"
    first = found["test"]["seed"]
    result = evaluate(
        drivers.load_driver(cfg.folder),
        cfg.home if same else envs.from_file(env_id, cfg.run / "config.json"),
        range(first, first + cfg.test_episodes),
        cfg.workers,
        name=f"PPO, {trained:,} frames" + (f", seed {cfg.seed}" if cfg.seed else ""),
        max_steps=cfg.max_steps,
        resume=target.with_name(f".{target.name}-resume"),
    )
    result.write(run.path / "evaluation.json")
    run.ledger.add("test", result.frames, f"test/{runs.config_hash(result.returns)[:16]}")
    runs.write_json(target, {"label": result.agent, **result.to_json()})
    with runs.RunFolder(cfg.run).lock():
        build_report(cfg.run)
    return result


def _read(run: Path) -> _Config:
    config: _Config = runs.read_json(run / "config.json", _Record)["config"]
    return config
