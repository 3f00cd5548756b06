"""Presets, and settings that are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from tests.pipeline.worker import tiny
from worldmodels import runs
from worldmodels.agent import Agent
from worldmodels.pipeline import run_pipeline
from worldmodels.presets import PRESETS
from worldmodels.protocols import UserError
from worldmodels.run_config import DEFAULT_ENV, RunConfig, changed
from worldmodels.stage_configs import (
    FromScratchConfig,
    MemoryStageConfig,
    SelectionConfig,
)


def test_presets_are_valid_and_ordered() -> None:
    smoke, quick, full = (PRESETS[name]() for name in ("smoke", "quick", "full"))
    assert smoke.vision_training.steps < quick.vision_training.steps
    assert quick.test.episodes == 20
    assert full.test.episodes == 100
    assert isinstance(full, RunConfig)


def test_late_iterations_are_validated_on_more_episodes() -> None:
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backend", ["auto", "kernels"])
def test_a_run_moves_between_cpu_and_gpu(
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
