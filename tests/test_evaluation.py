"""Evaluation: the seeds decide, the workers do not; statistics against plain formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from worldmodels import executors
from worldmodels.agent import Agent
from worldmodels.controller.linear import ControllerConfig, num_parameters
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.evaluation import (
    AgentParameters,
    bootstrap_interval,
    evaluate,
    evaluate_many,
    summarize,
)
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.protocols import UserError
from worldmodels.vision.vae import ConvVAE, VAEConfig

Z, H = 4, 8
ENV = "worldmodels/CarRacing-v3"
SEEDS = [500_000, 500_001, 500_002, 500_003]


class Circle:
    """Full steering, some gas; counts the frames it has seen, to show its state is kept."""

    def predict(
        self,
        obs: NDArray[np.uint8],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        assert obs.dtype == np.uint8 and obs.shape[1:] == (96, 96, 3)
        assert (state is None) == bool(episode_start is not None and episode_start.all())
        action = np.tile(np.array([1, 0.3, 0], np.float32), (len(obs), 1))
        return action, 0 if state is None else state + 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    agent = Agent(
        ConvVAE(VAEConfig(Z, 4)),
        [MDNRNN(MDNRNNConfig(Z, 3, H, 2))],
        ControllerConfig(),
        np.random.default_rng(0).standard_normal(num_parameters(ControllerConfig(), Z, H)),
        env_id="CarRacing-v3",
        frame_spec=FrameSpec(84),
        action_spec=ActionSpec("box", 3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    )
    return agent.save_pretrained(tmp_path_factory.mktemp("evaluation") / "agent")


def test_record_is_what_the_page_and_the_command_expect(folder: Path, tmp_path: Path) -> None:
    result = evaluate(folder, ENV, SEEDS, 1, max_steps=30)
    result.write(tmp_path / "score.json")
    record = json.loads((tmp_path / "score.json").read_text())
    assert {"agent", "env", "versions", "machine", "episodes", "mean", "std"} <= set(record)
    assert {"median", "iqm", "p10", "ci95", "fraction_solved", "seconds"} <= set(record)
    assert [e["seed"] for e in record["episodes"]] == SEEDS
    assert {"seed", "return", "length", "lap_finished"} <= set(record["episodes"][0])
    assert record["episodes"][0]["lap_finished"] is False
    assert record["mean"] == pytest.approx(np.mean([e["return"] for e in record["episodes"]]))
    assert record["frames"] == result.frames == 4 * 30
    assert record["fraction_solved"] == 0.0
    assert result.pick("best").total_reward == result.returns.max()
    assert result.pick("worst").total_reward == result.returns.min()
    assert result.pick("median").total_reward == sorted(result.returns)[1]


def test_workers_do_not_matter(folder: Path) -> None:
    options: dict[str, Any] = {"group_size": 2, "max_steps": 25}
    alone = evaluate(folder, ENV, SEEDS, 1, **options)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with executors.make("processes", 2) as pool:
        together = evaluate(folder, ENV, SEEDS, executor=pool, **options)
        sampled = evaluate(folder, ENV, SEEDS, executor=pool, deterministic=False, **options)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    np.testing.assert_array_equal(alone.returns, together.returns)
    again = evaluate(folder, ENV, SEEDS, 1, deterministic=False, **options)
    np.testing.assert_array_equal(sampled.returns, again.returns)
    reversed_groups = evaluate(folder, ENV, SEEDS[2:] + SEEDS[:2], 1, **options)
    np.testing.assert_array_equal(reversed_groups.returns[2:], alone.returns[:2])


def test_checkpoints_share_one_evaluation(folder: Path) -> None:
    agent = Agent.from_pretrained(folder)
    other = AgentParameters(folder, -agent.parameters)
    results = evaluate_many([folder, other], ENV, SEEDS[:2], 1, names=["a", "b"], max_steps=60)
    assert [r.agent for r in results] == ["a", "b"]
    np.testing.assert_array_equal(
        results[0].returns, evaluate(folder, ENV, SEEDS[:2], 1, max_steps=60).returns
    )
    held = evaluate(agent.with_parameters(other.parameters), ENV, SEEDS[:2], 1, max_steps=60)
    np.testing.assert_array_equal(results[1].returns, held.returns)


def test_actions_and_seed_are_the_episode(folder: Path) -> None:
    result = evaluate(folder, ENV, SEEDS[:2], 1, max_steps=40, keep_actions=True)
    episode = result.episodes[1]
    assert episode.actions is not None and episode.actions.shape == (40, 3)
    env = gym.make(ENV)
    env.reset(seed=episode.seed)
    assert sum(float(env.step(a)[1]) for a in episode.actions) == pytest.approx(
        episode.total_reward
    )
    env.close()


def test_controls_and_objects_can_be_evaluated() -> None:
    first = evaluate("random", ENV, SEEDS[:2], 1, max_steps=20)
    np.testing.assert_array_equal(
        first.returns, evaluate("random", ENV, SEEDS[:2], 1, max_steps=20).returns
    )
    assert evaluate("zeros", ENV, SEEDS[:1], 1, max_steps=20).episodes[0].length == 20
    result = evaluate(Circle(), ENV, SEEDS[:2], 1, max_steps=20)
    assert result.agent == "Circle"
    assert np.isfinite(result.returns).all()


def test_an_interrupted_evaluation_resumes(folder: Path, tmp_path: Path) -> None:
    whole = evaluate(folder, ENV, SEEDS, 1, group_size=1, max_steps=20)
    kept = tmp_path / "partial.json"

    class Interrupted(executors.SerialExecutor):
        def map(self, fn: Any, items: Any) -> Any:
            for index, result in super().map(fn, items):
                if index == 2:
                    raise KeyboardInterrupt
                yield index, result

    with pytest.raises(KeyboardInterrupt):
        evaluate(
            folder, ENV, SEEDS, executor=Interrupted(), group_size=1, max_steps=20, resume=kept
        )
    assert len(json.loads(kept.read_text())["groups"]) == 2
    resumed = evaluate(folder, ENV, SEEDS, 1, group_size=1, max_steps=20, resume=kept)
    np.testing.assert_array_equal(resumed.returns, whole.returns)
    assert not kept.exists()


def test_mistakes_are_named(folder: Path) -> None:
    with pytest.raises(UserError, match="no agent 'nobody'"):
        evaluate("nobody", ENV, SEEDS)
    with pytest.raises(UserError, match="no seeds"):
        evaluate("random", ENV, [])
    with pytest.raises(UserError, match="group_size"):
        evaluate("random", ENV, SEEDS, group_size=0)
    with pytest.raises(UserError, match="CarRacing-v9"):
        evaluate("random", "CarRacing-v9", SEEDS)
    with pytest.raises(UserError, match="5 discrete actions"):
        evaluate(folder, ENV, SEEDS, env_kwargs={"continuous": False})
    with pytest.raises(UserError, match=r"no predict\(\)"):
        evaluate(3.0, ENV, SEEDS)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(UserError, match="cannot be sent"):

        class Local(Circle):
            """Pickle cannot find a class of a function."""

        evaluate(Local(), ENV, SEEDS, 2, group_size=2)


def test_statistics_are_the_plain_formulas() -> None:
    values = np.random.default_rng(0).normal(700, 200, 101)
    summary = summarize(values, 900)
    assert summary.mean == pytest.approx(values.mean())
    assert summary.std == pytest.approx(np.sqrt(np.mean((values - values.mean()) ** 2)))
    assert summary.median == sorted(values)[50]
    assert summary.p10 == sorted(values)[10]
    assert summary.iqm == pytest.approx(np.mean(sorted(values)[25:-25]))
    assert summary.fraction_solved == np.mean(values >= 900)
    assert summary.ci95 is not None
    low, high = summary.ci95
    error = stats.t.ppf(0.975, 100) * values.std(ddof=1) / np.sqrt(101)
    np.testing.assert_allclose([low, high], [summary.mean - error, summary.mean + error], atol=4)
    assert summarize(values).fraction_solved is None


def test_degenerate_samples_have_an_interval() -> None:
    assert bootstrap_interval([3.0, 3.0, 3.0]) == (3.0, 3.0)
    assert bootstrap_interval([3.0]) is None
    assert bootstrap_interval([1.0, 2.0]) is not None
    with pytest.raises(UserError, match="finite"):
        summarize([1.0, np.nan])
    with pytest.raises(UserError, match="at least one"):
        summarize([])


@settings(max_examples=25)
@given(st.lists(st.floats(-100, 1000), min_size=2, max_size=30), st.integers(0, 3))
def test_intervals_enclose_the_sample_and_repeat(values: list[float], seed: int) -> None:
    interval = bootstrap_interval(values, seed=seed)
    assert interval is not None
    low, high = interval
    slack = 1e-9 * (1 + max(abs(v) for v in values))
    assert min(values) - slack <= low <= high + slack
    assert high <= max(values) + slack
    assert interval == bootstrap_interval(values, seed=seed)
