"""The stage that collects: how many episodes, and of which seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.experience.fakes import BOX, steps_of
from worldmodels.envs.frames import FrameSpec
from worldmodels.experience.exploration import AgentNoiseConfig, AR1Config
from worldmodels.experience.store import EpisodeStore
from worldmodels.presets import quick
from worldmodels.protocols import TRAINING_SEED_LIMIT, UserError
from worldmodels.run_config import changed
from worldmodels.stage_configs import MOST_EPISODES, ExperienceConfig
from worldmodels.stages import StageContext
from worldmodels.stages.collection import CollectionPlan, by_agents, collect, training_seeds

TWO = (AR1Config(), AR1Config(scale=0.5))


def collected(out: Path, frames: int | None, most: int = 100) -> EpisodeStore:
    plan = CollectionPlan(TWO, 6, None, None, used=0, frames=frames, most=most)
    found = collect(
        plan, BOX, out, StageContext(), group=4, action_repeat=1, frame_spec=FrameSpec()
    )
    store = EpisodeStore(out)
    assert (found["frames"], found["episodes"]) == (store.num_steps, len(store))
    return store


def test_more_episodes_follow_until_there_are_enough_frames(tmp_path: Path) -> None:
    first = collected(tmp_path / "first", None)
    assert len(first) == 6
    enough = collected(tmp_path / "enough", first.num_steps)
    assert enough.fingerprint == first.fingerprint
    more = collected(tmp_path / "more", 3 * first.num_steps)
    seeds = sorted(record.entry.seed for record in more.episodes)
    assert seeds == sorted(training_seeds(0, 0, 18).tolist()), "three times as many, each once"
    assert more.num_steps == sum(map(steps_of, seeds))
    limited = collected(tmp_path / "limited", 10**6, most=9)
    assert len(limited) == 9


def test_an_interrupted_collection_ends_with_the_same_episodes(tmp_path: Path) -> None:
    whole = collected(tmp_path / "whole", 800)
    kinds = {shard.parent.name for shard in (tmp_path / "whole").glob("*/*.shard")}
    assert kinds == {"0", "1", "0-more", "1-more"}
    collected(tmp_path / "cut", 800)
    lost = sorted((tmp_path / "cut").glob("1-more/*"))
    for path in lost:
        path.unlink()
    assert collected(tmp_path / "cut", 800).fingerprint == whole.fingerprint


def test_iterations_with_a_number_of_frames_have_seeds_of_their_own() -> None:
    cfg = ExperienceConfig(explore_episodes=10, agent_episodes=4)
    assert by_agents(cfg, [Path("agent")], 3).used == 10 + 2 * 4
    frames = dataclasses.replace(cfg, agent_frames=1000)
    plan = by_agents(frames, [Path("agent")], 3)
    assert (plan.used, plan.frames, plan.most) == (10 + 2 * MOST_EPISODES, 1000, MOST_EPISODES)
    iterations = TRAINING_SEED_LIMIT // MOST_EPISODES + 2
    with pytest.raises(UserError, match="training seeds"):
        changed(quick(BOX), {"experience.agent_frames": 1000, "iterations": iterations})


def test_some_of_the_agent_s_episodes_begin_at_random() -> None:
    cfg = ExperienceConfig(agent_random_starts=0.5, burst_steps=7, explore_rho=0.3)
    (one, *_) = by_agents(cfg, [Path("agent")], 1).behaviours
    assert isinstance(one, AgentNoiseConfig)
    assert (one.random_start_probability, one.random_start_steps, one.explore.rho) == (0.5, 7, 0.3)
    (plain, *_) = by_agents(ExperienceConfig(), [Path("agent")], 1).behaviours
    assert isinstance(plain, AgentNoiseConfig) and plain.random_start_probability == 0
    assert plain.explore == AR1Config()
