"""The pipeline: one seed gives one agent, whatever kills it; unchanged stages are skipped."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from tests.pipeline_worker import tiny
from worldmodels import pipeline, runs, stages
from worldmodels.agent import Agent
from worldmodels.metrics import RECORDS, read_lines
from worldmodels.pages import build_report
from worldmodels.pipeline import run_pipeline, runner
from worldmodels.pipeline.iteration import Iteration
from worldmodels.policies.ensemble import other_members
from worldmodels.policies.opening import best_policy
from worldmodels.presets import PRESETS
from worldmodels.protocols import UserError
from worldmodels.run_config import DEFAULT_ENV, RunConfig, changed
from worldmodels.stage_configs import (
    EnsembleStageConfig,
    FromScratchConfig,
    MemoryStageConfig,
    SelectionConfig,
)
from worldmodels.stages import LatentsFile, selection
from worldmodels.stages.collection import load_policy
from worldmodels.stages.controller import recorded_starts
from worldmodels.stages.learning import half_flipped, held_out, originals
from worldmodels.tasks.car_racing import Flip

WORKER = Path(__file__).with_name("pipeline_worker.py")
AGENT_FILES = ("vision", "memory", "controller", "starts")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("unbroken")
    run_pipeline(tiny(), out, seed=1, workers=1, preset="tiny")
    return out


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


def test_memories_of_rounds_with_the_same_v_dream_together(tmp_path: Path) -> None:
    cfg = tiny()
    cfg = dataclasses.replace(
        cfg,
        vision_training=dataclasses.replace(cfg.vision_training, finetune_iterations=0),
        controller=dataclasses.replace(cfg.controller, memory_iterations=3),
    )
    run_pipeline(cfg, tmp_path, seed=4, workers=1)
    first, last = (Agent.from_pretrained(tmp_path / "iterations" / f"0{n}/agent") for n in (0, 1))
    assert (len(first.memories), len(last.memories)) == (1, 2)
    own, older = (memory.mixture.weight for memory in last.memories)
    torch.testing.assert_close(older, first.memories[0].mixture.weight)
    assert not torch.equal(own, older)


def test_fresh_rounds_begin_v_and_m_anew(tmp_path: Path) -> None:
    cfg = dataclasses.replace(
        tiny(),
        iterations=4,
        from_scratch=FromScratchConfig(iterations=2, vision_steps=7, memory_steps=8),
    )
    cfg = dataclasses.replace(
        cfg,
        vision_training=dataclasses.replace(cfg.vision_training, finetune_iterations=0),
        controller=dataclasses.replace(cfg.controller, memory_iterations=3),
    )
    run_pipeline(cfg, tmp_path, seed=5, workers=1)
    folder = runs.RunFolder(tmp_path)

    def steps(stage: str) -> dict[int, int]:
        rows = folder.metrics(stage)
        return {row["iteration"]: row["step"] for row in rows}

    assert steps("vision") == {0: 10, 2: 7}
    assert steps("memory") == {0: 10, 1: 6, 2: 8, 3: 8}
    agents = [Agent.from_pretrained(tmp_path / "iterations" / f"0{n}/agent") for n in range(4)]
    assert [len(agent.memories) for agent in agents] == [1, 2, 1, 2]  # others have another V
    frames = np.zeros((1, 64, 64, 3), np.uint8)
    means = [agent.encode(frames)[0] for agent in agents]
    np.testing.assert_array_equal(means[0], means[1])
    assert not np.allclose(means[1], means[2], atol=1e-3)
    np.testing.assert_array_equal(means[2], means[3])


def test_fresh_rounds_are_the_last() -> None:
    cfg = RunConfig(iterations=6, from_scratch=FromScratchConfig(iterations=2, vision_steps=30))
    assert [n for n in range(6) if cfg.begins_vision(n)] == [0, 4]
    assert [n for n in range(6) if cfg.begins_memory(n)] == [0, 4, 5]
    assert [n for n in range(6) if cfg.trains_vision(n)] == [0, 1, 4]
    assert cfg.vision_training_of(0) == cfg.vision_training_of(5) == cfg.vision_training
    assert cfg.vision_training_of(4).steps == 30
    assert cfg.memory_training_of(4) == cfg.memory_training
    with pytest.raises(UserError, match="memory_steps is 0; it must be at least 1"):
        FromScratchConfig(memory_steps=0)
    with pytest.raises(UserError, match="iterations is -1; it must be at least 0"):
        FromScratchConfig(iterations=-1)


@pytest.mark.parametrize("together", [2.0, 1.0])
def test_a_committee_drives_where_selection_prefers_it(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: float
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    for stage in ("ensemble", "test"):
        (out / "stages" / stage / "02.json").unlink()
    (out / "agent" / "ensemble").mkdir(exist_ok=True)  # half a folder, left by a kill
    judged: list[list[int]] = []

    def judge(policies: Sequence[object], env_id: str, seeds: range, **_: object) -> list[Any]:
        judged.append([*seeds])
        means = [1.0, *[together] * (len(policies) - 1)]
        summary = SimpleNamespace(std=0.0)
        return [
            SimpleNamespace(mean=m, frames=40, returns=np.array([m]), summary=summary)
            for m in means
        ]

    monkeypatch.setattr(selection, "evaluate_many", judge)
    run_pipeline(tiny(), out, seed=1, workers=1, preset="tiny")
    assert judged == [[500_006, 500_007]]  # 4 chose C, 2 more its residual
    winner = runs.read_json(out / "stages" / "final" / "02.json")["outputs"]["iteration"]
    kept = together > 1
    (row,) = runs.RunFolder(out).metrics("ensemble_selection")
    assert (row["rounds"], row["kept"]) == ([1 - winner], kept)
    assert len(other_members(out / "agent")) == kept
    assert (best_policy(out / "agent") == "ensemble") is kept
    assert runs.read_json(out / "evaluation.json")["agent"].endswith("(ensemble)") is kept
    if kept:
        (folder,) = other_members(out / "agent")
        mine = Agent.from_pretrained(folder)
        theirs = Agent.from_pretrained(out / "iterations" / f"0{1 - winner}" / "agent")
        np.testing.assert_allclose(mine.parameters, theirs.parameters, rtol=1e-3, atol=1e-4)
        report = (out / "report.html").read_text()
        assert "Ensemble" in report and "2 members" in report
        run_pipeline(  # another choice before it sends the members home
            dataclasses.replace(tiny(), ensemble=EnsembleStageConfig()),
            out,
            seed=1,
            workers=1,
            preset="tiny",
        )
        assert not other_members(out / "agent")


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


STAGES = ("collect", "vision", "encode", "memory", "controller", "select")


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


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[str, Callable[[Path], object], set[str]]] = {
    "a shard": ("experience/00-*/0/seeds-*", flip, {"collect/00"}),
    "a collection": ("experience/01-*", shutil.rmtree, {"collect/01"}),
    "V": ("iterations/00/vision.*", Path.unlink, {"vision/00"}),
    "latents": ("iterations/01/latents-00.*", flip, {"encode/01"}),
    "M": ("iterations/00/memory.*", flip, {"memory/00"}),
    "the evolved agent": ("iterations/01/agent/starts.*", flip, {"controller/01", "select/01"}),
    "the selected agent": ("iterations/01/agent/config.json", Path.unlink, {"select/01"}),
    "the agent": ("agent", shutil.rmtree, {"final/02"}),
    "its weights": ("agent/memory.safetensors", flip, {"final/02"}),
    "the test": ("evaluation.json", lambda path: path.write_bytes(b""), {"test/02"}),
    "the ledger": ("frames.json", Path.unlink, set()),
    "the report": ("report.html", Path.unlink, set()),
    "a record": ("stages/select/00.json", flip, {"select/00"}),
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


def test_presets_are_valid_and_ordered() -> None:
    smoke, quick, full = (PRESETS[name]() for name in ("smoke", "quick", "full"))
    assert smoke.vision_training.steps < quick.vision_training.steps
    assert quick.test.episodes == 20
    assert full.test.episodes == 100
    assert isinstance(full, RunConfig)


def test_late_rounds_are_validated_on_more_tracks() -> None:
    cfg = SelectionConfig(episodes=16, early_episodes=2, late_iterations=3)
    assert [cfg.episodes_of(number, 5) for number in range(5)] == [2, 2, 16, 16, 16]
    assert SelectionConfig(episodes=16).episodes_of(0, 5) == 16
    with pytest.raises(UserError, match=r"early_episodes is 17; it must be from 1 to episodes"):
        SelectionConfig(episodes=16, early_episodes=17)


def test_any_environment_with_pixels_runs(tmp_path: Path) -> None:
    from tests.experience import fakes

    cfg = tiny(fakes.DISCRETE)
    controller = dataclasses.replace(cfg.controller, inputs="zhc", discrete="thresholds")
    run_pipeline(dataclasses.replace(cfg, controller=controller), tmp_path, seed=0, workers=1)
    agent = Agent.from_pretrained(tmp_path / "agent")
    assert agent.env_id == fakes.DISCRETE
    assert (agent.controller.inputs, agent.controller.choices) == ("zhc", (0, 1, 2, 3))
    assert (tmp_path / "evaluation.json").exists()
    assert "dream.html" in (tmp_path / "report.html").read_text()


def test_settings_of_another_task_or_for_other_actions_are_refused(tmp_path: Path) -> None:
    from tests.experience import fakes

    def refused(said: str, of: str, **change: Any) -> None:
        cfg = changed(dataclasses.replace(tiny(of), test_env_id=None), change)
        with pytest.raises(UserError, match=said):
            run_pipeline(cfg, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    said = "settings are for car-racing, and env_id is .*: begin with quick"
    refused(said, DEFAULT_ENV, env_id=fakes.BOX)
    refused("settings are for Pong-v9", fakes.BOX, made_for="Pong-v9")
    refused("discrete is 'thresholds'; ", fakes.BOX, **{"controller.discrete": "thresholds"})
    for setting, value in (
        ("explore_bias", ((0.0,),)),
        ("agent_bias_std", 0.1),
        ("agent_noise", (0.0, 1.5)),
    ):
        refused(setting, fakes.DISCRETE, **{f"experience.{setting}": value})
    with pytest.raises(UserError, match=r"inputs is 'zhc'; .*transformer, which has no cell"):
        changed(tiny(), {"controller.inputs": "zhc", "memory.kind": "transformer"})


def test_a_mirrored_run_learns_from_both_images(unbroken: Path) -> None:
    latents = LatentsFile.load(unbroken / "iterations" / "01" / "latents-01.safetensors").latents
    assert latents.num_episodes == 2 * 2
    for first in (0, 2):
        seen, twin = (latents.select([first + k]) for k in (0, 1))
        assert seen.seeds == twin.seeds
        np.testing.assert_array_equal(seen.reward, twin.reward)
        np.testing.assert_array_equal(seen.action * [-1, 1, 1], twin.action)
        assert np.abs(seen.mu - twin.mu).max() > 1e-3
    held = held_out(60, horizontal_flip=True)
    assert np.flatnonzero(held).tolist() == [0, 1, 40, 41]  # both images or neither
    assert np.flatnonzero(held_out(60, horizontal_flip=False)).tolist() == [0, 20, 40]


def test_dreams_of_a_mirrored_run_begin_in_originals(unbroken: Path) -> None:
    file = LatentsFile.load(unbroken / "iterations" / "01" / "latents-01.safetensors")
    cfg = dataclasses.replace(tiny().starts, count=400)
    memory = Agent.from_pretrained(unbroken / "agent").memories[0]
    starts = recorded_starts(cfg, originals([file]), [memory], 0, posterior_noise=0.0)
    seen = file.latents.select([0, 2]).mu
    assert all((np.abs(seen - z).max(axis=1) < 1e-6).any() for z in starts.z)


def test_half_of_v_s_frames_are_mirrored_and_a_resumed_run_sees_the_same() -> None:
    mirror = Flip(1.0, "box")
    batches = [np.random.default_rng(k).integers(0, 255, (40, 64, 64, 3), np.uint8) for k in (0, 1)]
    all_of_them = list(half_flipped(iter(batches), mirror, seed=3, start=0))
    resumed = list(half_flipped(iter(batches[1:]), mirror, seed=3, start=1))
    np.testing.assert_array_equal(all_of_them[1], resumed[0])
    turned = [
        np.array_equal(a, mirror.frames(b)) for a, b in zip(all_of_them[0], batches[0], strict=True)
    ]
    assert 10 < sum(turned) < 30


def test_only_a_known_mirror_can_be_used(tmp_path: Path) -> None:
    from tests.experience import fakes

    cfg = dataclasses.replace(tiny(), env_id=fakes.BOX, made_for=None)
    with pytest.raises(UserError, match=r"test_env_id .* takes other actions than env_id"):
        run_pipeline(cfg, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    cfg = dataclasses.replace(cfg, test_env_id=None)
    with pytest.raises(UserError, match=f"horizontal_flip is on for {fakes.BOX}"):
        run_pipeline(cfg, tmp_path, seed=0, workers=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backend", ["auto", "kernels"])
def test_a_run_moves_between_processor_and_graphics_card(
    tmp_path: Path, backend: Literal["auto", "kernels"]
) -> None:
    cfg = dataclasses.replace(
        tiny(),
        iterations=1,
        from_scratch=FromScratchConfig(),
        memory=MemoryStageConfig(hidden_size=32, dropout=0.1),
        dream=dataclasses.replace(tiny().dream, backend=backend),
    )
    out = tmp_path / "run"
    run_pipeline(cfg, out, workers=1, device="cuda")
    config = runs.RunFolder(out).read_config()
    assert config["machine"]["gpu"] == torch.cuda.get_device_name()
    agent = Agent.from_pretrained(out / "agent")
    assert agent.vision.to_mu.weight.device.type == "cpu"
    longer = dataclasses.replace(cfg, iterations=2)
    run_pipeline(longer, out, workers=1, device="cpu")
    stages = [(line["name"], line["iteration"]) for line in runs.RunFolder(out).metrics("stage")]
    assert stages.count(("memory", 0)) == 1, "what the card had done was done again"
    assert ("memory", 1) in stages


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CarRacing"):
        run_pipeline(dataclasses.replace(tiny(), env_id="CarRacing-v9"), tmp_path, seed=0)
    with pytest.raises(UserError, match="seed is -1"):
        run_pipeline(tiny(), tmp_path, seed=-1, workers=1)
    with pytest.raises(UserError, match=r"SelectionConfig.seed is 5"):
        SelectionConfig(seed=5)
