"""The stages as commands: from episodes to an agent, resumed; parts that do not fit are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.experience.fakes import BOX, DISCRETE
from worldmodels import cli, executors
from worldmodels.agent import Agent
from worldmodels.commands import parsing
from worldmodels.experience.store import EpisodeStore
from worldmodels.protocols import UserError
from worldmodels.runs import RunFolder, load_checkpoint, read_json, save_checkpoint, write_json
from worldmodels.stages import (
    LatentsFile,
    MemoryFile,
    StageContext,
    VisionFile,
    open_stage,
)
from worldmodels.stages.collection import training_seeds

EPISODES, Z, H = 4, 8, 32


def run(*words: object) -> None:
    assert cli.main([str(word) for word in words]) == 0


def collect(out: Path, *more: object, env: str = BOX) -> None:
    words = ["--preset", "smoke", "--env-id", env, "--episodes", str(EPISODES), "--workers", "1"]
    run("collect", "--out", out, *words, *more)


def train_vision(folder: Path, out: Path, *more: object) -> None:
    run("train-vision", "--preset", "smoke", "--data", folder / "episodes", "--out", out, *more)


def train_memory(folder: Path, out: Path, *more: object) -> None:
    words = ["--preset", "smoke", "--latents", folder / "z.safetensors", "--out", out]
    run("train-memory", *words, *more)


def train_controller(folder: Path, out: Path, *more: object) -> None:
    parts = ["--vision", folder / "v.pt", "--memory", folder / "m.pt"]
    words = ["--latents", folder / "z.safetensors", "--out", out, "--dream.backend", "torch"]
    run("train-controller", "--preset", "smoke", *parts, *words, *more)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages once, noted in a run folder."""
    out = tmp_path_factory.mktemp("staged")
    collect(out / "episodes", "--scale", "0.3", "0.6", "--run", out)
    train_vision(out, out / "v.pt", "--run", out)
    data = ["--data", out / "episodes", "--vision", out / "v.pt"]
    run("encode", *data, "--out", out / "z.safetensors", "--run", out)
    train_memory(out, out / "m.pt", "--run", out)
    train_controller(out, out / "agent", "--run", out)
    words = ["--json", out / "evaluation.json", "--episodes", "3", "--workers", "1"]
    run("evaluate", "--agent", out / "agent", *words, "--resume", "--run", out)
    run("report", "--run", out)
    return out


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert cli.main([str(word) for word in words]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line


# --- the stages


def test_every_stage_leaves_what_the_next_one_reads(staged: Path) -> None:
    store = EpisodeStore(staged / "episodes")
    seeds = [record.entry.seed for record in store.episodes]
    assert seeds == training_seeds(0, 0, EPISODES).tolist()
    vision, memory = VisionFile.load(staged / "v.pt"), MemoryFile.load(staged / "m.pt")
    latents = LatentsFile.load(staged / "z.safetensors")
    assert latents.latents.num_frames == store.num_frames
    assert latents.vision == memory.vision == vision.digest
    assert vision.source == memory.source == latents.source
    assert vision.source.env_id == BOX
    agent = Agent.from_pretrained(staged / "agent")
    assert (agent.z_dim, agent.h_dim, agent.env_id) == (Z, H, BOX)
    assert agent.starts is not None
    assert np.any(agent.parameters)
    assert torch.equal(agent.vision.to_mu.weight, vision.model.to_mu.weight)
    assert torch.equal(agent.memories[0].mixture.weight, memory.models[0].mixture.weight)


def test_the_run_folder_has_metrics_ledger_and_report(staged: Path) -> None:
    folder = RunFolder(staged)
    stages = [line["name"] for line in folder.metrics("stage")]
    assert stages == ["collect", "vision", "encode", "memory", "controller"]
    for name in ("collection", "vision", "memory", "controller", "memory_calibration"):
        assert folder.metrics(name), name
    evaluation = json.loads((staged / "evaluation.json").read_text())
    assert [episode["seed"] for episode in evaluation["episodes"]] == [10**6, 10**6 + 1, 10**6 + 2]
    assert (evaluation["agent"], evaluation["env"]) == (str(staged / "agent"), BOX)
    totals, store = folder.ledger.read()["totals"], EpisodeStore(staged / "episodes")
    assert totals["collection"] == store.num_steps
    assert totals["test"] == evaluation["frames"]
    assert totals["dream"] == (4 * 8 + 2) * 4 * 20
    assert (staged / "report.html").stat().st_size > 10_000
    assert not list(staged.glob(".*")), "nothing is left to resume"


def test_a_stage_that_is_repeated_counts_its_frames_once(staged: Path) -> None:
    before = RunFolder(staged).ledger.read()
    collect(staged / "episodes", "--scale", "0.3", "0.6", "--run", staged)
    assert RunFolder(staged).ledger.read() == before


def test_a_longer_collection_counts_what_is_new(tmp_path: Path) -> None:
    for episodes in ("2", "4"):
        words = ["--scale", "0.3", "--episodes", episodes, "--run", tmp_path]
        collect(tmp_path / "e", *words)
    assert RunFolder(tmp_path).ledger.read()["totals"]["collection"] == (
        EpisodeStore([tmp_path / "e" / "0"]).num_steps
    )


def test_an_agent_collects_and_training_continues(staged: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    collect(more, "--agent", staged / "agent", "--noise", "0.1")
    shutil.copytree(staged / "episodes", tmp_path / "episodes")
    both = ["--data", staged / "episodes", more]
    vision = ["--vision", staged / "v.pt"]
    train_vision(tmp_path, tmp_path / "v.pt", *both, "--init", staged / "v.pt")
    run("encode", *both, *vision, "--out", tmp_path / "z.safetensors")
    latents = LatentsFile.load(tmp_path / "z.safetensors")
    assert latents.latents.num_episodes == 2 * EPISODES
    train_memory(tmp_path, tmp_path / "m.pt", "--init", staged / "m.pt", "--memory.ensemble", "1")
    files = ["--memory", tmp_path / "m.pt", *vision]
    train_controller(tmp_path, tmp_path / "a", *files, "--init", staged / "agent")
    assert Agent.from_pretrained(tmp_path / "a").metadata["seed"] == 0


def test_frames_are_not_counted_in_a_run_of_another_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"config": {"env_id": BOX, "test_env_id": None}}
    write_json(tmp_path / "config.json", config)
    words = ["evaluate", "--agent", "car-racing", "--run", str(tmp_path)]
    assert cli.main(words) == 2
    assert "these are frames of CarRacing-v3: name its agent" in capsys.readouterr().err
    run("evaluate", "--agent", "random", "--env", BOX, "--episodes", "1", "--run", tmp_path)
    assert read_json(tmp_path / "frames.json")["totals"]["test"] > 0


def test_a_training_that_was_stopped_ends_with_the_same_weights(
    staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path, state: object) -> None:
        save_checkpoint(path, state)  # type: ignore[arg-type]  # passed on
        raise KeyboardInterrupt

    words = ["train-vision", "--preset", "smoke", "--data", staged / "episodes"]
    words += ["--out", tmp_path / "v.pt"]
    with monkeypatch.context() as patch:
        patch.setattr("worldmodels._training.save_checkpoint", stop)
        assert cli.main([str(word) for word in words]) == 130
    assert list(tmp_path.glob(".v.pt-resume/*/state.safetensors"))
    assert not (tmp_path / "v.pt").exists()
    run(*words)
    assert VisionFile.load(tmp_path / "v.pt").digest == VisionFile.load(staged / "v.pt").digest
    assert [path.name for path in tmp_path.iterdir()] == ["v.pt"]


def test_without_a_gpu_none_is_used(
    staged: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out, v, m = tmp_path / "out", staged / "v.pt", staged / "m.pt"
    data, latents = ["--data", staged / "episodes"], ["--latents", staged / "z.safetensors"]
    for words in (
        ["train-vision", *data],
        ["encode", *data, "--vision", v],
        ["train-memory", *latents],
        ["train-controller", *latents, "--vision", v, "--memory", m],
        ["run", "--preset", "smoke"],
    ):
        line = fails(capsys, *words, "--out", out, "--device", "cuda")
        assert "device is cuda, but torch finds no GPU" in line
        assert not out.exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_stage_computes_on_a_gpu(staged: Path, tmp_path: Path) -> None:
    shutil.copytree(staged / "episodes", tmp_path / "episodes")
    on = ["--device", "cuda"]
    train_vision(tmp_path, tmp_path / "v.pt", *on)
    data = ["--data", tmp_path / "episodes", "--vision", tmp_path / "v.pt"]
    run("encode", *data, "--out", tmp_path / "z.safetensors", *on)
    train_memory(tmp_path, tmp_path / "m.pt", *on)
    train_controller(tmp_path, tmp_path / "agent", *on)
    agent = Agent.from_pretrained(tmp_path / "agent")
    assert np.isfinite(agent.parameters).all()
    assert torch.cuda.max_memory_allocated() > 0


def _state(ctx: StageContext) -> Path:
    path = ctx.checkpoint("state.pt")
    assert path is not None
    return path


def test_other_inputs_do_not_resume(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for inputs in (1, 2):
        with pytest.raises(KeyboardInterrupt), open_stage("vision", out, inputs, None) as work:
            save_checkpoint(_state(work), {})
            raise KeyboardInterrupt
    assert len(list(tmp_path.glob(".out-resume/*"))) == 1
    with open_stage("vision", out, 2, None) as work:
        assert _state(work).exists()
    assert not list(tmp_path.iterdir())


def test_threads_are_left_alone_where_the_user_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    parsing.use_all_cores()
    assert asked == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    parsing.use_all_cores()
    assert asked == [executors.usable_cores()]


# --- the whole pipeline, elsewhere


def test_run_takes_any_environment_with_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--preset", "smoke", "--env-id", DISCRETE, "--iterations", "1", "--workers", "1"]
    words += ["--dream.backend", "torch", "--test.no-videos", "--test.no-random-policy"]
    run("run", *words, "--out", tmp_path / "run")
    assert capsys.readouterr().out.endswith(f"report: {tmp_path / 'run' / 'report.html'}\n")
    assert Agent.from_pretrained(tmp_path / "run" / "agent").action_spec.kind == "discrete"


# --- evaluate


def test_evaluate_prints_a_table(staged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("evaluate", "--agent", "random", "--env", BOX, "--episodes", "2", "--workers", "1")
    text = capsys.readouterr().out
    assert all(word in text for word in ("mean return", "95% interval", "1000000 to 1000001"))


# --- parts that do not fit


def test_an_agent_for_another_action_space(
    staged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = staged / "agent"
    words = ["--env-id", DISCRETE, "--episodes", "1", "--workers", "1"]
    assert "4 discrete actions" in fails(capsys, "evaluate", "--agent", agent, *words)
    words += ["--out", str(tmp_path / "e")]
    assert "4 discrete actions" in fails(capsys, "collect", "--agent", agent, *words)
    assert not list(tmp_path.iterdir())


def test_a_missing_and_a_corrupt_shard_are_named(
    staged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "episodes"
    shutil.copytree(staged / "episodes" / "0", data)
    shard = next(data.glob("*.shard"))
    words = ["train-vision", "--preset", "smoke", "--data", data, "--out", tmp_path / "v.pt"]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    assert shard.name in fails(capsys, *words)
    shard.write_bytes(content[: len(content) // 2])
    assert shard.name in fails(capsys, *words)
    shard.unlink()
    assert f"{shard} is missing" in fails(capsys, *words)
    assert not (tmp_path / "v.pt").exists()


def test_files_of_another_kind_environment_or_vision(
    staged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    episodes, latents = staged / "episodes", staged / "z.safetensors"
    out, agent = ["--out", tmp_path / "out"], ["--latents", latents, "--out", tmp_path / "a"]
    told = fails(capsys, "encode", "--data", episodes, "--vision", staged / "m.pt", *out)
    assert "m.pt is a file of memory; expected one of vision: `worldmodels train-vision`" in told
    collect(tmp_path / "other", env=DISCRETE)
    words = ["--data", tmp_path / "other", "--vision", staged / "v.pt"]
    assert "has env_id" in fails(capsys, "encode", *words, *out)
    train_vision(staged, tmp_path / "v.pt", "--seed", "1")
    words = ["--vision", tmp_path / "v.pt", "--memory", staged / "m.pt"]
    assert "are of different Vs" in fails(capsys, "train-controller", *words, *agent)
    words = ["--data", episodes, "--init", staged / "v.pt", "--vision.z-dim", "5"]
    assert "holds VAEConfig(z_dim=8" in fails(capsys, "train-vision", *words, *out)
    words = ["--latents", latents, "--init", staged / "m.pt", "--memory.hidden-size", "5"]
    assert "holds 1 of MDNRNNConfig" in fails(capsys, "train-memory", *words, *out)


def test_damaged_files_are_named(
    staged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    for name, loader in (
        ("v.pt", VisionFile),
        ("m.pt", MemoryFile),
        ("z.safetensors", LatentsFile),
    ):
        path.write_bytes((staged / name).read_bytes()[:-100])
        with pytest.raises(UserError, match=str(path)):
            loader.load(path)
    content = load_checkpoint(staged / "v.pt")
    for change, told in (
        ({"schema": 99}, "schema 99"),
        ({"config": {"z_dim": 8, "other": 1}}, "another version"),
        (
            {"config": {"z_dim": 9, "width": 8, "standardized": True}},
            r"'to_mu.weight' has shape .* needs \(9, 256\)",
        ),
        ({"config": []}, r"config is \[\]; it must be an object"),
        (
            {"weights": {"to_mu.weight": 1}},
            r"weights\['to_mu.weight'\] is 1; it must be of class Tensor",
        ),
        ({"source": {"env_id": 3}}, "source lacks frame_spec, action_spec"),
        ({"kind": None}, "another kind"),
    ):
        save_checkpoint(path, {**content, **change})
        with pytest.raises(UserError, match=told):
            VisionFile.load(path)
