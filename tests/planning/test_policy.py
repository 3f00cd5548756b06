"""Planners as policies: held decisions, rows, seeds, and the way from the command line."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.planning.conftest import MakeAgent
from worldmodels.agent import Agent
from worldmodels.artifacts import weights_digest
from worldmodels.cli import main
from worldmodels.planning import planners
from worldmodels.planning.actor_critic import train_policy
from worldmodels.planning.gradient import GradientConfig
from worldmodels.planning.imitation import ImitationConfig, collect_decisions, imitate
from worldmodels.planning.networks import NetworkConfig
from worldmodels.planning.objective import DreamObjective
from worldmodels.planning.plan import ObjectiveConfig, Plan
from worldmodels.planning.planners import PlanningConfig
from worldmodels.planning.sampling import CEMConfig, MPPIConfig
from worldmodels.planning.streams import PolicyTrainConfig
from worldmodels.policies.learned import PolicyFile
from worldmodels.policies.opening import best_policy, open_policy, policy_path
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.protocols import DEFAULT_AGENT, SHIPPED, Policy, UserError
from worldmodels.runs import read_json

CFG = PlanningConfig(
    ObjectiveConfig(horizon=4, particles=2, proposal=True),
    CEMConfig(samples=8, iterations=2),
    MPPIConfig(samples=8, iterations=2),
    GradientConfig(iterations=2, restarts=2),
)
SMALL = PolicyTrainConfig(
    steps=4, batch_size=8, horizon=3, network=NetworkConfig(8, 1), checkpoint_every=2, log_every=1
)
METHODS: tuple[str, ...] = ("cem", "icem", "mppi", "gradient", "rollout")


def frames(batch: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (batch, 96, 96, 3), np.uint8)


@pytest.mark.parametrize("method", METHODS)
def test_planners_are_policies_that_hold_their_decisions(
    make_agent: MakeAgent, method: str
) -> None:
    policy = PlanningPolicy(make_agent(), method, CFG)
    assert isinstance(policy, Policy)
    first, state = policy.predict(frames(2), deterministic=True)
    held, state = policy.predict(frames(2, 1), state, np.zeros(2, np.bool_), True)
    fresh, state = policy.predict(frames(2, 2), state, np.zeros(2, np.bool_), True)
    assert first.shape == (2, 3)
    np.testing.assert_array_equal(held, first)
    assert not np.array_equal(fresh, first)
    assert state.decisions.tolist() == [2, 2]
    single, _ = policy.predict(frames(1)[0], deterministic=True)
    assert single.shape == (3,)


def test_the_same_seed_gives_the_same_drive(make_agent: MakeAgent) -> None:
    def drive(seed: int) -> NDArray[np.float32]:
        policy = PlanningPolicy(make_agent(), "cem", CFG)
        policy.reseed(seed)
        actions, state = [], None
        for t in range(4):
            action, state = policy.predict(frames(2, t), state)
            actions.append(action)
        return np.stack(actions)

    np.testing.assert_array_equal(drive(1), drive(1))
    assert not np.array_equal(drive(1), drive(2))


def test_rows_nobody_looks_at_are_not_planned_for(make_agent: MakeAgent) -> None:
    policy = PlanningPolicy(make_agent(action_repeat=1), "cem", CFG)
    policy.attend(np.array([True, False, True]))
    _, state = policy.predict(frames(3), deterministic=True)
    assert [plan is None for plan in state.plans] == [False, True, False]
    alone = PlanningPolicy(make_agent(action_repeat=1), "cem", CFG)
    action, _ = alone.predict(frames(3), deterministic=True)
    np.testing.assert_array_equal(action[[0, 2]], state.action[[0, 2]])


def test_an_episode_that_begins_forgets_the_last_one(make_agent: MakeAgent) -> None:
    policy = PlanningPolicy(make_agent(), "icem", CFG)
    before, state = policy.predict(frames(2), deterministic=True)
    _, state = policy.predict(frames(2, 1), state, deterministic=True)
    again, state = policy.predict(frames(2), state, np.array([False, True]), deterministic=True)
    np.testing.assert_array_equal(again[1], before[1])
    assert state.held.tolist() == [1, 1]
    with pytest.raises(UserError, match="3 frames were given with the state of 2"):
        policy.predict(frames(3), state)


def test_m_is_told_what_was_done(make_agent: MakeAgent) -> None:
    agent = make_agent(action_repeat=1)
    policy = PlanningPolicy(agent, "cem", CFG)
    _, state = policy.predict(frames(1), deterministic=True)
    _, later = policy.predict(frames(1, 1), state, deterministic=True)
    z, action = torch.from_numpy(state.z), torch.from_numpy(state.action)
    h, _, _ = agent.memories[0](z[:, None], action[:, None])
    np.testing.assert_allclose(later.h[0], h[:, 0].detach(), atol=1e-6)


def test_planners_can_be_sent_to_a_process(make_agent: MakeAgent) -> None:
    policy = PlanningPolicy(make_agent(), "cem", CFG)
    copy = pickle.loads(pickle.dumps(policy))
    for one in (policy, copy):
        one.reseed(3)
    mine, theirs = (one.predict(frames(1), deterministic=True)[0] for one in (policy, copy))
    np.testing.assert_array_equal(mine, theirs)
    assert policy.digest == copy.digest
    other = PlanningPolicy(make_agent(), "mppi", CFG)
    assert other.digest != policy.digest


def test_imitation_learns_what_was_planned(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = make_agent()
    plain = NetworkConfig(components=0)
    cfg = ImitationConfig(2, 3, epochs=60, batch=6, learning_rate=1e-2, network=plain)
    policy = PlanningPolicy(agent, "cem", CFG)
    decisions = collect_decisions(policy, cfg, 0, tmp_path / "kept.pt")
    again = collect_decisions(policy, cfg, 0, tmp_path / "kept.pt")
    np.testing.assert_array_equal(decisions.numbers, again.numbers)
    losses: list[float] = []
    actor = imitate(
        agent, decisions, cfg, seed=0, log=lambda **m: losses.append(m["imitation_loss"])
    )
    assert losses[-1] < 0.3 * losses[0]
    assert actor.mode(*(torch.from_numpy(x) for x in (decisions.z, decisions.h))).shape == (
        len(decisions.z),
        3,
    )


class TestCommands:
    @pytest.fixture
    def folder(self, make_agent: MakeAgent, tmp_path: Path) -> Path:
        return make_agent().save_pretrained(tmp_path / "agent")

    def test_a_learned_policy_drives_from_its_agent_s_folder(self, folder: Path) -> None:
        agent = Agent.from_pretrained(folder)
        actor, critic = train_policy(agent, SMALL, seed=0)
        file = PolicyFile((actor,), critic, "actor-critic", weights_digest(*agent.memories))
        file.save(policy_path(folder, "actor-critic"))
        driver = open_policy(folder, "actor-critic")
        assert driver.digest
        action, _ = driver.predict(frames(1), deterministic=True)
        z, _ = agent.encode(frames(1))
        np.testing.assert_allclose(
            action, actor.mode(z, torch.zeros(1, agent.h_dim)).detach(), atol=1e-6
        )
        critical = dataclasses.replace(
            CFG, objective=dataclasses.replace(CFG.objective, critic=True)
        )
        open_policy(folder, "cem", critical).predict(frames(1))
        with pytest.raises(UserError, match="another M"):
            PolicyFile.load(policy_path(folder, "actor-critic"), _other(agent))

    def test_a_missing_policy_names_the_command_that_makes_it(self, folder: Path) -> None:
        with pytest.raises(UserError, match="worldmodels train-policy"):
            open_policy(folder, "policy-network")

    def test_train_plan_and_evaluate(self, folder: Path, tmp_path: Path) -> None:
        agent = ["--agent", str(folder)]
        small = ["--training.steps", "2", "--training.batch_size", "4", "--training.horizon", "2"]
        assert main(["train-policy", *agent, "--policy", "policy-network", *small]) == 0
        search = ["--planning.objective.horizon", "3", "--planning.cem.samples", "6"]
        out = tmp_path / "plan.json"
        words = ["plan", *agent, "--policy", "cem", *search, "--decisions", "2"]
        assert main([*words, "--json", str(out), "--video", str(tmp_path / "plan.mp4")]) == 0
        decision = read_json(out)["decisions"][0]
        assert np.shape(decision["actions"]) == (3, 3)
        assert decision["epistemic"] == [0, 0, 0]
        assert (tmp_path / "plan.mp4").stat().st_size > 0
        for policy in ("cem", "policy-network"):
            result = tmp_path / f"{policy}.json"
            words = ["evaluate", *agent, "--policy", policy, "--episodes", "1"]
            words += search if policy == "cem" else []
            limits = ["--seed", "500000", "--max-steps", "4", "--workers", "1"]
            assert main([*words, *limits, "--json", str(result)]) == 0
            content = read_json(result)
            assert content["agent"].endswith(f"({policy})")
            assert content["ms_per_action"] > 0

    def test_an_agent_with_a_residual_drives_by_it(self, folder: Path, tmp_path: Path) -> None:
        agent, out = ["--agent", str(folder)], tmp_path / "result.json"
        words = ["evaluate", *agent, "--episodes", "1", "--seed", "500000", "--max-steps", "4"]
        words += ["--workers", "1", "--json", str(out)]
        assert best_policy(folder) == "controller"
        assert main(words) == 0
        assert read_json(out)["agent"] == str(folder)
        small = ["--training.steps", "3", "--training.batch_size", "4", "--training.horizon", "2"]
        assert main(["train-policy", *agent, "--policy", "residual", *small]) == 0
        assert best_policy(folder) == "residual"
        assert main(words) == 0
        assert read_json(out)["agent"] == f"{folder} (residual)"
        assert main([*words, "--policy", "controller"]) == 0
        assert read_json(out)["agent"] == str(folder)

    def test_only_a_residual_changes_c(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["train-policy", "--agent", str(folder), "--policy", "residual"]
        assert main([*words, "--training.network.residual", "0"]) == 2
        assert "training.network.residual is 0" in capsys.readouterr().err
        words[-1] = "actor-critic"
        assert main([*words, "--training.network.residual", "1"]) == 2
        assert "policy is actor-critic" in capsys.readouterr().err


def _other(agent: Agent) -> Agent:
    torch.nn.init.zeros_(agent.memories[0].mixture.bias)
    return agent


def test_a_plan_s_shift_is_kept_between_decisions(make_agent: MakeAgent) -> None:
    policy = PlanningPolicy(make_agent(action_repeat=1), "icem", CFG)
    guesses: list[NDArray[np.float32]] = []
    real = policy.planner.plan

    def spy(objective: object, guess: NDArray[np.float32], *rest: object) -> Plan:
        guesses.append(guess)
        return real(objective, guess, *rest)  # type: ignore[arg-type]

    object.__setattr__(policy.planner, "plan", spy)
    _, state = policy.predict(frames(1), deterministic=True)
    plan = state.plans[0]
    assert plan is not None
    policy.predict(frames(1, 1), state, deterministic=True)
    np.testing.assert_array_equal(guesses[1], plan.shifted().actions)


class Shooting:
    """A planner of a few lines: the best of some random plans."""

    def plan(
        self,
        objective: DreamObjective,
        guess: NDArray[np.float32],
        candidates: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> Plan:
        drawn = rng.uniform(objective.low, objective.high, (6, *guess.shape)).astype(np.float32)
        scores = objective.score(drawn)
        best = int(scores.argmax())
        return Plan(drawn[best], float(scores[best]), drawn[:0], 1, len(drawn), 0.0)


def test_a_planner_that_is_registered_is_an_option_of_the_commands(
    make_agent: MakeAgent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_agent().save_pretrained(tmp_path / "agent")
    words = ["plan", "--agent", str(folder), "--policy", "shooting", "--decisions", "2"]
    assert main(words) == 2
    assert "the planner is 'shooting'; there are cem, icem" in capsys.readouterr().err
    monkeypatch.setitem(planners.PLANNERS, "shooting", planners.Planner(lambda _: Shooting()))
    out = tmp_path / "out.json"
    assert main([*words, "--json", str(out)]) == 0
    assert read_json(out)["policy"] == "shooting"
    assert [step["samples"] for step in read_json(out)["decisions"]] == [6, 6]
    words = ["evaluate", *words[1:5], "--episodes", "1", "--max-steps", "4", "--workers", "1"]
    assert main([*words, "--json", str(out)]) == 0
    assert read_json(out)["agent"].endswith("(shooting)")
    assert main([*words, "--planning.cem.samples", "9"]) == 2
    assert "the planner is shooting" in capsys.readouterr().err


def test_a_bundled_agent_s_folder_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path for path in (SHIPPED / DEFAULT_AGENT).rglob("*"))
    assert main(["train-policy", "--policy", "policy-network"]) == 2
    assert "car-racing comes with the package" in capsys.readouterr().err
    assert sorted(path for path in (SHIPPED / DEFAULT_AGENT).rglob("*")) == before
