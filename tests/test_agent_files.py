"""The folder of an agent: what is written, found, refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from baselines import drivers
from baselines.bookkeeping import Bookkeeping, inherit
from tests.agents import H, Z, frames, make
from worldmodels import agent as module
from worldmodels import runs
from worldmodels.agent import Agent, find
from worldmodels.artifacts import read_tensors
from worldmodels.commands.evaluate import home_of
from worldmodels.controller.linear import InputStats
from worldmodels.dream.starts import DreamStarts
from worldmodels.evaluation.policies import stamp
from worldmodels.memory.interface import MemoryState
from worldmodels.memory.rewards import RewardModel
from worldmodels.policies.opening import open_policy, policy_path
from worldmodels.protocols import UserError
from worldmodels.runs import RunFolder


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_folder_gives_the_agent_back(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(0)
    stats = InputStats.of(torch.randn(20, Z + H, generator=torch.Generator().manual_seed(0)))
    starts = DreamStarts(
        *(rng.standard_normal(s).astype(np.float32) for s in ((5, Z), (2, 5, H), (2, 5, H)))
    )
    agent = make(
        memories=2,
        normalize=True,
        input_stats=stats,
        starts=starts,
        reward_model=RewardModel("event", -0.1, 3.3),
        metadata={
            "evaluation": {"mean": 812.5, "std": 91.0, "ci95": [790.0, 833.0], "episodes": 100},
            "frames": {"totals": {"collection": 200_000}},
        },
    )
    agent.save_pretrained(tmp_path / "a" / "agent", dtype)
    back = Agent.from_pretrained(tmp_path / "a" / "agent")
    for name in ("controller", "env_id", "frame_spec", "action_spec", "reward_model", "metadata"):
        assert getattr(back, name) == getattr(agent, name), name
    tolerance = 2e-3 if dtype == "float16" else 0
    for ours, theirs in zip(agent.memories, back.memories, strict=True):
        for key, tensor in ours.state_dict().items():
            torch.testing.assert_close(theirs.state_dict()[key], tensor, atol=tolerance, rtol=0)
    assert back.starts is not None
    np.testing.assert_allclose(back.starts.h, starts.h, atol=tolerance)
    np.testing.assert_array_equal(back.parameters, agent.parameters)
    obs = frames(1)[0]
    np.testing.assert_allclose(
        back.predict(obs, deterministic=True)[0],
        agent.predict(obs, deterministic=True)[0],
        atol=10 * tolerance,
    )
    card = (tmp_path / "a" / "agent" / "README.md").read_text()
    assert "812.5 +- 91.0" in card and "collection | 200,000" in card and "100 episodes" in card


def test_the_card_speaks_of_the_agents_own_task(tmp_path: Path) -> None:
    agent = make()
    for env_id, title in (("CarRacing-v3", "A driver"), ("CartPole-v1", "An agent")):
        agent.env_id = env_id
        card = (agent.save_pretrained(tmp_path / "agent") / "README.md").read_text()
        assert card.startswith(f"# {title} for {env_id}\n")
        assert ("driv" in card) == (title == "A driver")


def test_written_again_is_the_same_and_other_files_stay(tmp_path: Path) -> None:
    folder = make().save_pretrained(tmp_path / "agent")
    first = (folder / "vision.safetensors").read_bytes()
    (folder / "videos").mkdir()
    (folder / "videos" / "best.mp4").write_bytes(b"x")
    loaded = Agent.from_pretrained(folder)
    loaded.save_pretrained(folder)
    assert (folder / "vision.safetensors").read_bytes() == first
    assert (folder / "videos" / "best.mp4").read_bytes() == b"x"
    assert [p.name for p in tmp_path.iterdir()] == ["agent"]


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    folder = make().save_pretrained(tmp_path / "agent")
    before = torch.get_rng_state()
    Agent.from_pretrained(folder)
    torch.testing.assert_close(torch.get_rng_state(), before)


def test_loaded_memory_runs_sequences(tmp_path: Path) -> None:
    memory = Agent.from_pretrained(make().save_pretrained(tmp_path / "agent")).memories[0]
    z, action = torch.randn(2, 5, Z), torch.randn(2, 5, 3)
    h_seq, _, last = memory(z, action)
    state: MemoryState = memory.initial_state(2)
    for t in range(5):
        _, state = memory.step(z[:, t], action[:, t], state)
    torch.testing.assert_close(last.h, state.h)
    torch.testing.assert_close(h_seq[:, -1], state.h)


def test_shipped_agents_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHIPPED", tmp_path)
    make().save_pretrained(tmp_path / "car-racing")
    assert Agent.from_pretrained("car-racing").env_id == "CarRacing-v3"
    with pytest.raises(UserError, match=r"'cars'.*is not a folder.*comes with: car-racing"):
        Agent.from_pretrained("cars")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no config\.json"):
        Agent.from_pretrained(tmp_path / "empty")


def test_a_run_folder_stands_for_its_agent(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.write_config({"preset": "quick"})
    for name in (run.path, str(run.path)):
        with pytest.raises(UserError, match=r"is a run folder without an agent; finish the run"):
            open_policy(name)
        with pytest.raises(UserError, match="without an agent"):
            home_of(str(name))
    agent = make()
    agent.save_pretrained(run.agent)
    assert find(run.path) == find(run.agent) == run.agent
    assert home_of(str(run.path)) == "CarRacing-v3"
    assert stamp(run.path) == stamp(run.agent)
    assert policy_path(run.path, "residual").parent == run.agent
    assert not drivers.is_driver(run.path)
    obs = frames(1)[0]
    action, _ = open_policy(run.path).predict(obs, deterministic=True)
    np.testing.assert_array_equal(action, open_policy(run.agent).predict(obs, None, None, True)[0])
    run.ledger.add("collection", 7, "x")
    books = Bookkeeping()
    inherit(books, run.path)
    assert books.ledger == [("collection", "agent/collection", 7)]
    runs.write_json(run.agent / "config.json", {"schema": "driver/1", "env_id": "x"})
    assert drivers.is_driver(run.path) and home_of(str(run.path)) == "x"
    with pytest.raises(UserError, match="holds a baseline, which has no V, M and C"):
        Agent.from_pretrained(run.path)


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    folder = make().save_pretrained(tmp_path / "agent")
    config = folder / "config.json"
    text = config.read_text()

    def broken(change: dict[str, Any], match: str) -> None:
        config.write_text(json.dumps({**json.loads(text), **change}))
        with pytest.raises(UserError, match=match):
            Agent.from_pretrained(folder)
        config.write_text(text)

    broken({"schema": 99}, "schema 99; this version reads 1")
    broken(
        {"vision": {"z_dim": Z, "width": 8}}, r"'encoder.0.weight' has shape \(4, 3, 4, 4\).*\(8, 3"
    )
    broken({"memories": 2}, "memories is 2, but memory.safetensors holds 1")
    broken({"controller": {"wings": 2}}, "controller has the unknown field 'wings'")
    broken({"memories": 10**9}, r"json: memories is 1000000000; it must be .* at most 1,000$")
    broken({"memories": True}, "memories is True; it must be a whole number")
    for repeat in (0, -3, 10**12, 1.5):
        broken({"action_repeat": repeat}, rf"json: action_repeat is {repeat}; it must be")
    broken({"decoder": 1}, "decoder is 1; it must be True or False")
    broken({"sha256": {}}, "sha256 is {}; it must name")
    broken({"reward_model": {"base": 1e400}}, "not valid JSON")
    broken({"frame_spec": {"rows": 0}}, r"json: frame_spec\.rows is 0; it must be at least 1")
    broken({"metadata": 3}, "metadata is 3; it must be an object")
    data = bytearray((folder / "memory.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "memory.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=r"memory\.safetensors is not the file"):
        Agent.from_pretrained(folder)
    (folder / "memory.safetensors").write_bytes(data[:50])
    with pytest.raises(UserError, match=r"memory\.safetensors is damaged"):
        Agent.from_pretrained(folder)
    (folder / "memory.safetensors").unlink()
    with pytest.raises(UserError, match=r"memory\.safetensors does not exist"):
        Agent.from_pretrained(folder)


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("vision", "to_mu.bias", torch.full((Z,), torch.nan), "not finite"),
        ("memory", "0.mixture.bias", None, r"memory\.safetensors lacks the tensor '0\.mixture"),
        ("controller", "parameters", None, r"controller\.safetensors lacks"),
        ("controller", "parameters", torch.ones(2, 3), r"has shape \(2, 3\)"),
        ("starts", "h", torch.ones(3), r"starts\.safetensors: tensor 'h' has shape \(3,\)"),
        ("starts", "z", torch.ones(0, Z), "no recorded states"),
    ],
)
def test_damaged_tensors_are_named(
    tmp_path: Path, part: str, name: str, value: torch.Tensor | None, message: str
) -> None:
    starts = DreamStarts(*(np.zeros(shape, np.float32) for shape in ((5, Z), (1, 5, H), (1, 5, H))))
    folder = make(starts=starts).save_pretrained(tmp_path / "agent", "float32")
    file, config = folder / f"{part}.safetensors", folder / "config.json"
    tensors = load_file(file)
    tensors.pop(name)
    save_file(tensors if value is None else {**tensors, name: value}, file)
    record = json.loads(config.read_text())
    record["sha256"][part] = hashlib.sha256(file.read_bytes()).hexdigest()
    config.write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        Agent.from_pretrained(folder)


def test_every_file_says_what_it_is(tmp_path: Path) -> None:
    folder = make().save_pretrained(tmp_path / "agent")
    header = json.loads(read_tensors(folder / "controller.safetensors", "").text)
    record = json.loads((folder / "config.json").read_text())
    assert header["kind"] == "controller" and header["source"] == {"env_id": "CarRacing-v3"}
    assert header["depends"] == {p: record["sha256"][p] for p in ("vision", "memory")}
    (folder / "vision.safetensors").write_bytes((folder / "memory.safetensors").read_bytes())
    record["sha256"]["vision"] = record["sha256"]["memory"]
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"vision\.safetensors holds 'memory', not vision"):
        Agent.from_pretrained(folder)


def test_nothing_half_written_and_nothing_of_others_overwritten(tmp_path: Path) -> None:
    agent = make()
    with torch.no_grad():
        agent.memories[0].mixture.bias[0] = 1e6
    with pytest.raises(UserError, match=r"'0\.mixture\.bias'.*float16"):
        agent.save_pretrained(tmp_path / "agent")
    assert not list(tmp_path.iterdir())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"")
    with pytest.raises(UserError, match="holds other files than an agent"):
        agent.save_pretrained(tmp_path / "photos", "float32")
    with pytest.raises(UserError, match="float8"):
        agent.save_pretrained(tmp_path / "agent", "float8")


def test_a_folder_keeps_the_action_repeat(tmp_path: Path) -> None:
    agent = make(action_repeat=4)
    agent.save_pretrained(tmp_path / "agent")
    assert Agent.from_pretrained(tmp_path / "agent").action_repeat == 4
