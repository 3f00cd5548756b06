"""Ensembles: who decides, what each M is told, the folder, and the command."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.planning.conftest import MakeAgent
from tests.planning.test_policy import frames
from worldmodels.agent import Agent, AgentState
from worldmodels.cli import main
from worldmodels.envs.spaces import ActionSpec
from worldmodels.planning.networks import Actor, Critic, NetworkConfig
from worldmodels.policies.ensemble import Ensemble, EnsembleState
from worldmodels.policies.learned import PolicyFile, origin
from worldmodels.policies.opening import best_policy, open_member, open_policy, policy_path
from worldmodels.protocols import Policy, UserError
from worldmodels.runs import read_json
from worldmodels.stage_configs import SelectionConfig
from worldmodels.stages import StageContext, add_members

CHOICES = ActionSpec("discrete", 3)


def other(agent: Agent, seed: int) -> Agent:
    rng = np.random.default_rng(seed)
    return agent.with_parameters(rng.standard_normal(agent.parameters.shape))


def test_the_mean_is_executed_and_every_memory_is_told(make_agent: MakeAgent) -> None:
    members = [make_agent(action_repeat=1), other(make_agent(action_repeat=1), 1)]
    ensemble = Ensemble(members)
    assert isinstance(ensemble, Policy)
    state: EnsembleState | None = None
    own: list[AgentState | None] = [None, None]
    for t in range(3):
        action, state = ensemble.predict(frames(2, t), state, deterministic=True)
        alone = [m.predict(frames(2, t), s, None, True) for m, s in zip(members, own, strict=True)]
        mean = np.stack([answer for answer, _ in alone]).mean(0)
        np.testing.assert_allclose(action, mean, rtol=1e-6)
        told = [m.executed(s, mean) for m, (_, s) in zip(members, alone, strict=True)]
        own = [*told]
        for mine, theirs in zip(state, told, strict=True):
            np.testing.assert_allclose(mine.h, theirs.h, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(mine.action, mean, rtol=1e-6)


def test_actions_are_held_by_all(make_agent: MakeAgent) -> None:
    ensemble = Ensemble([make_agent(), other(make_agent(), 1)])
    first, state = ensemble.predict(frames(2), deterministic=True)
    held, state = ensemble.predict(frames(2, 1), state, np.zeros(2, np.bool_), True)
    fresh, state = ensemble.predict(frames(2, 2), state, np.zeros(2, np.bool_), True)
    np.testing.assert_array_equal(held, first)
    assert not np.array_equal(fresh, first)
    single, _ = ensemble.predict(frames(2)[0], deterministic=True)
    np.testing.assert_allclose(single, first[0], atol=1e-6)


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_choices_are_voted_on(make_agent: MakeAgent, batch: int | None) -> None:
    agent = make_agent(spec=CHOICES)
    members = [other(agent, seed) for seed in range(5)]
    obs = frames(1)[0] if batch is None else frames(batch)
    action, state = Ensemble(members).predict(obs, deterministic=True)
    answers = np.stack([m.predict(obs, deterministic=True)[0] for m in members]).reshape(5, -1)
    for row, choice in enumerate(np.atleast_1d(action)):
        counts = np.bincount(answers[:, row], minlength=3)
        assert counts[choice] == counts.max()
        assert state[0].action[row].argmax() == choice
    assert np.shape(action) == (() if batch is None else (batch,))


def test_the_earlier_member_wins_a_tie(make_agent: MakeAgent) -> None:
    agent = make_agent(spec=CHOICES)
    obs = frames(8)
    for seed in range(4):
        pair = [other(agent, seed), other(agent, seed + 10)]
        action, _ = Ensemble(pair).predict(obs, deterministic=True)
        np.testing.assert_array_equal(action, pair[0].predict(obs, deterministic=True)[0])


def test_two_that_choose_are_not_tried(make_agent: MakeAgent, tmp_path: Path) -> None:
    """As the earlier one wins a tie, both together are the first."""
    for name in ("first", "second"):
        make_agent(spec=CHOICES).save_pretrained(tmp_path / name)
    ctx = StageContext(seed=0, iteration=0, run=None)  # nowhere to drive, or to store anything
    others = {1: tmp_path / "second"}
    assert add_members(SelectionConfig(), tmp_path / "first", others, ctx) == []


def test_noise_is_each_ones_own_and_repeats(make_agent: MakeAgent) -> None:
    ensemble = Ensemble([make_agent(), make_agent()])
    drives = []
    for seed in (1, 1, 2):
        ensemble.reseed(seed)
        action, state = ensemble.predict(frames(2))
        assert not np.array_equal(state[0].z, state[1].z)
        drives.append(action)
    np.testing.assert_array_equal(drives[0], drives[1])
    assert not np.array_equal(drives[0], drives[2])


def test_members_must_fit_each_other(make_agent: MakeAgent) -> None:
    with pytest.raises(UserError, match="at least one"):
        Ensemble([])
    with pytest.raises(UserError, match="member 1 has action_repeat 3, but member 0 has 2"):
        Ensemble([make_agent(), make_agent(action_repeat=3)])
    with pytest.raises(UserError, match="action_spec"):
        Ensemble([make_agent(), make_agent(spec=CHOICES)])


def test_its_digest_names_the_members(make_agent: MakeAgent) -> None:
    agent = make_agent()
    digests = [Ensemble([agent, other(agent, seed)]).digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]
    pickle.loads(pickle.dumps(Ensemble([agent, agent])))  # goes to worker processes


def test_the_command_joins_and_evaluate_drives(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = make_agent()
    a = agent.save_pretrained(tmp_path / "a", dtype="float32")
    b = other(agent, 1).save_pretrained(tmp_path / "b", dtype="float32")
    out = tmp_path / "both"
    assert best_policy(a) == "controller"
    assert main(["ensemble", str(a), str(b), "--out", str(out)]) == 0
    assert best_policy(out) == "ensemble"
    assert not list(tmp_path.glob(".both-*"))
    opened = open_policy(out)
    assert isinstance(opened, Ensemble)
    expected = Ensemble([open_member(a), open_member(b)])
    assert opened.digest == expected.digest
    np.testing.assert_array_equal(
        opened.predict(frames(2), deterministic=True)[0],
        expected.predict(frames(2), deterministic=True)[0],
    )
    # of the other member only what drives is kept
    mate = Agent.from_pretrained(out / "ensemble" / "01")
    assert mate.vision.decoder is None
    assert mate.starts is None
    with pytest.raises(UserError, match="without its decoder"):
        mate.decode(np.zeros((1, mate.z_dim)))
    result = tmp_path / "drive.json"
    words = ["--episodes", "2", "--seed", "500000", "--max-steps", "4", "--workers", "1"]
    assert main(["evaluate", "--agent", str(out), *words, "--json", str(result)]) == 0
    assert read_json(result)["agent"].endswith("(ensemble)")
    # an ensemble joins another with all its members
    assert main(["ensemble", str(out), str(b), "--out", str(tmp_path / "three")]) == 0
    three = open_policy(tmp_path / "three")
    assert isinstance(three, Ensemble)
    assert len(three.members) == 3


def test_a_member_keeps_its_residual_and_drives_alike(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    a = make_agent().save_pretrained(tmp_path / "a")
    b = other(make_agent(), 1).save_pretrained(tmp_path / "b")
    agent = Agent.from_pretrained(b)
    network = NetworkConfig(hidden=4, layers=1, residual=0.5)
    critic = Critic(agent.z_dim, agent.h_dim, network)
    file = PolicyFile((Actor.of(agent, network),), critic, "residual", origin(agent, network))
    file.save(policy_path(b, "residual"))
    assert main(["ensemble", str(a), str(b), "--out", str(tmp_path / "both")]) == 0
    stored = tmp_path / "both" / "ensemble" / "01"
    assert PolicyFile.load(policy_path(stored, "residual"), agent).critic is None
    np.testing.assert_array_equal(
        open_member(stored).predict(frames(2), deterministic=True)[0],
        open_member(b).predict(frames(2), deterministic=True)[0],
    )


def test_the_command_says_what_is_wrong(
    make_agent: MakeAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = make_agent().save_pretrained(tmp_path / "a")
    b = make_agent(action_repeat=3).save_pretrained(tmp_path / "b")
    out = str(tmp_path / "out")
    for words, what in (
        ([str(a), "--out", out], "give two or more"),
        ([str(a), str(a), "--out", str(b)], "exists"),
        ([str(a), str(b), "--out", out], "action_repeat"),
        ([str(a), str(tmp_path / "none"), "--out", out], "no agent"),
    ):
        assert main(["ensemble", *words]) == 2
        assert what in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    evaluate = ["evaluate", "--agent", str(a), "--policy"]
    assert main([*evaluate, "ensemble"]) == 2
    assert "has no ensemble" in capsys.readouterr().err
    for policy in ("ensemble", "controller"):
        assert main([*evaluate, policy, "--weights", "some.safetensors"]) == 2
        assert f"weights is some.safetensors, but {policy}" in capsys.readouterr().err
