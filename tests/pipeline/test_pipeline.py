"""The pipeline: one seed gives one agent, whatever kills it; unchanged stages are skipped."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pipeline.worker import tiny
from worldmodels import pipeline, runs, stages
from worldmodels.agent import Agent
from worldmodels.metrics import RECORDS, read_lines
from worldmodels.pages import build_report
from worldmodels.pipeline import run_pipeline, runner
from worldmodels.pipeline.iteration import Iteration
from worldmodels.protocols import UserError
from worldmodels.run_config import changed
from worldmodels.stage_configs import (
    EnsembleStageConfig,
)
from worldmodels.stages.collection import load_policy

WORKER = Path(__file__).with_name("worker.py")
AGENT_FILES = ("vision", "memory", "controller", "starts")
STAGES = ("collect", "vision", "encode", "memory", "controller", "select")


def weights(run: Path) -> list[bytes]:
    return [(run / "agent" / f"{name}.safetensors").read_bytes() for name in AGENT_FILES]


def test_every_stage_writes_the_whole_record_of_its_metrics(unbroken: Path) -> None:
    written: dict[str, set[str]] = {stage: set() for stage in RECORDS}
    for line in read_lines(unbroken / "metrics.jsonl"):
        written[line["stage"]] |= set(line) - {"time", "stage", "iteration"}
    # CarRacing's rewards are events, and its tracks hardly end by themselves
    left_out = {"memory_calibration": {"ends", "reward_reliability"}}
    for stage, record in RECORDS.items():
        assert written[stage] == set(record.__annotations__) - left_out.get(stage, set()), stage


def test_killed_in_every_stage_it_ends_with_the_same_agent(unbroken: Path, tmp_path: Path) -> None:
    out, kills = tmp_path / "broken", tmp_path / "kills"
    rounds = ("collect", "vision", "encode", "memory", "controller", "select")
    stages = [f"{name}/{number:02d}" for number in (0, 1) for name in rounds]
    stages += ["final/02", "residual/02", "ensemble/02", "test/02"]
    command = [sys.executable, str(WORKER), str(out), "1", str(kills), str(len(stages))]
    told = subprocess.run(command, capture_output=True, timeout=300, check=True).stdout
    ends = [line for line in told.decode().splitlines() if line.startswith("exit ")]
    assert ends == [f"exit {-signal.SIGKILL}"] * len(stages)
    command = [sys.executable, str(WORKER), str(out), "1"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert kills.read_text().split() == stages
    assert weights(out) == weights(unbroken)
    ledgers = [runs.RunFolder(run).ledger.read()["totals"] for run in (out, unbroken)]
    assert ledgers[0] == ledgers[1]
    returns = [
        [e["return"] for e in runs.read_json(run / "evaluation.json")["episodes"]]
        for run in (out, unbroken)
    ]
    assert returns[0] == returns[1]


def test_a_finished_run_does_nothing_again(unbroken: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (unbroken / "stages").rglob("*.json")}
    metrics = (unbroken / "metrics.jsonl").read_text()
    run_pipeline(tiny(), unbroken, seed=1, workers=1, preset="tiny")
    assert before == {p: p.stat().st_mtime_ns for p in (unbroken / "stages").rglob("*.json")}
    assert (unbroken / "metrics.jsonl").read_text() == metrics


def test_the_report_is_there_from_the_start_and_reloads_until_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = []

    def build(folder: Path, running: str = "") -> Path:
        page = build_report(folder, running)
        pages.append((running, page.read_text("utf-8")))
        return page

    for module in (pipeline, runner):
        monkeypatch.setattr(module, "build_report", build)
    monkeypatch.setattr(runner, "PAGE_SECONDS", 0.0)  # write it as each stage begins
    monkeypatch.setattr(runner, "PAGE_FRACTION", 1e9)
    monkeypatch.setattr(stages, "select", fail)
    with pytest.raises(UserError, match="no electricity"):
        run_pipeline(tiny(), tmp_path, seed=1, workers=1)
    names = ("collect", "vision", "encode", "memory", "controller", "select")
    assert [running for running, _ in pages] == [
        *(f"{name}, stage {place} of 16" for place, name in enumerate(names, 1)),
        "",
    ]
    for running, page in pages[:-1]:
        assert "data-reload" in page and f"<b>Running</b> {running}." in page
        assert "Not there yet" not in page
    assert "V sees" in pages[2][1] and "V sees" not in pages[1][1]  # what is done is shown
    assert "data-reload" not in pages[-1][1]  # a run that failed is not running
    assert "Not there yet" in pages[-1][1]


def fail(*_: object, **__: object) -> None:
    raise UserError("no electricity")


def test_it_leaves_everything_that_was_promised(unbroken: Path) -> None:
    for name in ("config.json", "metrics.jsonl", "frames.json", "report.html", "evaluation.json"):
        assert (unbroken / name).is_file()
    assert (unbroken / "dream.html").is_file()
    agent = Agent.from_pretrained(unbroken / "agent")
    assert agent.parameters.shape == (3 * (8 + 32 + 1),)
    totals = runs.RunFolder(unbroken).ledger.read()["totals"]
    assert totals["collection"] == 4 * 40 + 2 * 40
    assert totals["test"] == 2 * 20
    assert totals["selection"] > 0
    assert totals["dream"] > 0
    stages = {row["name"] for row in runs.RunFolder(unbroken).metrics("stage")}
    assert {"collect", "vision", "encode", "memory", "controller", "select", "test"} <= stages


def test_every_snapshot_of_an_evolution_can_drive(unbroken: Path) -> None:
    first = Iteration(0, unbroken / "iterations" / "00")
    snapshots = runs.load_checkpoint(first.folder / "controllers.safetensors")["snapshots"]
    folders = first.policies("all")
    assert [int(folder.name) for folder in folders] == sorted(snapshots) == [2, 4]
    for folder in folders:
        agent = load_policy(folder)
        np.testing.assert_array_equal(agent.parameters, snapshots[int(folder.name)])
    assert first.policies("selected") == [first.agent]


def test_another_seed_gives_another_agent(unbroken: Path, tmp_path: Path) -> None:
    cfg = dataclasses.replace(tiny(), iterations=1)
    run_pipeline(cfg, tmp_path, seed=2, workers=1)
    assert weights(tmp_path) != weights(unbroken)


def test_a_changed_setting_redoes_what_depends_on_it(tmp_path: Path) -> None:
    cfg = dataclasses.replace(tiny(), iterations=1)
    run_pipeline(cfg, tmp_path, seed=3, workers=1)
    folder = runs.RunFolder(tmp_path)

    def times() -> dict[str, int]:
        stages = tmp_path / "stages"
        return {name: (stages / name / "00.json").stat().st_mtime_ns for name in STAGES}

    begun = times()
    # random episodes are worth keeping when later ones, by agents, are to be others
    cfg = changed(cfg, {"experience.agent_episodes": 4, "experience.burst_steps": 3})
    run_pipeline(cfg, tmp_path, seed=3, workers=1)
    assert times() == begun
    cfg = changed(cfg, {"dream.temperature": 1.3})
    run_pipeline(cfg, tmp_path, seed=3, workers=1)
    now = times()
    redone = {name for name in STAGES if now[name] != begun[name]}
    assert redone == {"controller", "select"}
    assert len(folder.metrics("controller")) == cfg.controller.evolve.generations
    rows = folder.metrics("selection")
    assert len(rows) == len({row["generation"] for row in rows})
    for name in (*STAGES, "final", "test"):
        assert sum(row["name"] == name for row in folder.metrics("stage")) == 1
    assert len(folder.metrics("final")) == 1


@pytest.mark.parametrize(
    ("seed", "change", "message"),
    [
        (2, {}, "was begun with seed 1, now it is 2; choose another folder"),
        (1, {"env_id": "CarRacing-v3"}, "was begun with env_id 'worldmodels/CarRacing-v3', now"),
    ],
)
def test_another_run_s_folder_is_refused(
    unbroken: Path, seed: int, change: dict[str, Any], message: str
) -> None:
    before = (unbroken / "config.json").read_bytes()
    with pytest.raises(UserError, match=message):
        run_pipeline(dataclasses.replace(tiny(), **change), unbroken, seed=seed, workers=1)
    assert (unbroken / "config.json").read_bytes() == before
    with (
        ThreadPoolExecutor(1) as other,
        runs.locked(unbroken),
        pytest.raises(UserError, match="is in use by process"),
    ):
        other.submit(run_pipeline, tiny(), unbroken, seed=1, workers=1).result()


def test_the_ledger_counts_what_the_present_agent_cost(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    folder, cfg = runs.RunFolder(out), tiny()
    before = folder.ledger.read()
    folder.ledger.add("test", 7, "test/0123456789abcdef")  # of `worldmodels evaluate`
    dream = dataclasses.replace(cfg.dream, temperature=1.3)
    changed = dataclasses.replace(cfg, iterations=1, dream=dream, ensemble=EnsembleStageConfig())
    run_pipeline(changed, out, seed=1, workers=1, preset="tiny")
    after = folder.ledger.read()
    alone = tmp_path / "alone"
    run_pipeline(changed, alone, seed=1, workers=1, preset="tiny")
    fresh = runs.RunFolder(alone).ledger.read()["totals"]
    assert after["totals"] == {**fresh, "test": fresh["test"] + 7}
    assert len(after["entries"]) > len(before["entries"])  # what was spent stays listed
    run_pipeline(cfg, out, seed=1, workers=1, preset="tiny")
    back = folder.ledger.read()["totals"]
    assert back == {**before["totals"], "test": before["totals"]["test"] + 7}


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[str, Callable[[Path], object], set[str]]] = {
    "a shard": ("experience/00-*/0/seeds-*", flip_bit, {"collect/00"}),
    "a collection": ("experience/01-*", shutil.rmtree, {"collect/01"}),
    "V": ("iterations/00/vision.*", Path.unlink, {"vision/00"}),
    "latents": ("iterations/01/latents-00.*", flip_bit, {"encode/01"}),
    "M": ("iterations/00/memory.*", flip_bit, {"memory/00"}),
    "the evolved agent": ("iterations/01/agent/starts.*", flip_bit, {"controller/01", "select/01"}),
    "the selected agent": ("iterations/01/agent/config.json", Path.unlink, {"select/01"}),
    "the agent": ("agent", shutil.rmtree, {"final/02"}),
    "its weights": ("agent/memory.safetensors", flip_bit, {"final/02"}),
    "the test": ("evaluation.json", lambda path: path.write_bytes(b""), {"test/02"}),
    "the ledger": ("frames.json", Path.unlink, set()),
    "the report": ("report.html", Path.unlink, set()),
    "a record": ("stages/select/00.json", flip_bit, {"select/00"}),
}


def test_what_is_damaged_or_lost_is_made_again_and_nothing_else(
    unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    ledger = runs.RunFolder(out).ledger.read()["totals"]

    def times() -> dict[str, int]:
        stages = out / "stages"
        return {
            str(path.relative_to(stages).with_suffix("")): path.stat().st_mtime_ns
            for path in stages.rglob("*.json")
        }

    for names in (list(DAMAGES)[::2], list(DAMAGES)[1::2]):  # several at once, to save time
        before, wanted = times(), set[str]()
        for name in names:
            pattern, damage, redone = DAMAGES[name]
            damage(sorted(out.glob(pattern))[0])
            wanted |= redone
        run_pipeline(tiny(), out, seed=1, workers=1, preset="tiny")
        redone = {name for name, time in times().items() if time != before.get(name)}
        assert redone - {"residual/02", "ensemble/02"} == wanted  # these go with the agent
        assert weights(out) == weights(unbroken)
        assert runs.RunFolder(out).ledger.read()["totals"] == ledger
    assert (out / "report.html").is_file()
