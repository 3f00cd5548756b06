"""The settings that follow from what a few episodes show."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tests.envs.blocks import KINDS, name_of
from tests.tasks.examined import seen, settings
from worldmodels.envs.frames import FrameSpec
from worldmodels.memory.train import MemoryTrainConfig
from worldmodels.presets import PRESETS
from worldmodels.run_config import changed
from worldmodels.tasks.choices import choices
from worldmodels.tasks.classic import PENDULUM
from worldmodels.tasks.examination import Examination, Reach
from worldmodels.tasks.findings import findings


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preset", list(PRESETS))
def test_choices_are_settings_with_reasons(kind: str, preset: str) -> None:
    made = choices(seen(kind), preset)
    assert len({choice.setting for choice in made}) == len(made)
    assert all(choice.reason for choice in made)
    cfg = changed(PRESETS[preset](name_of(kind)), {c.setting: c.value for c in made})
    assert cfg.env_id == name_of(kind)


def test_a_constant_reward_is_known() -> None:
    found = settings("fine")
    assert found["memory.reward"] == "raw"
    assert found["memory_training.reward_weight"] == 0
    assert found["starts.off_track_weight"] == 1
    for kind in ("never", "goal", "rare", "pendulum"):
        assert settings(kind)["memory_training.reward_weight"] > 0
    assert settings("take cover")["memory_training.reward_weight"] == 0
    # whoever has seen no episode end does not know what ends pay
    assert settings("drawn out")["memory_training.reward_weight"] == 10
    assert settings("goal")["memory_training.reward_weight"] > 2


def test_what_a_last_step_pays_counts_where_the_length_does_not_decide() -> None:
    assert settings("bonus")["memory_training.reward_weight"] > 0, "the goal pays more"
    assert settings("one step")["memory_training.reward_weight"] > 0
    found = seen("take cover")
    assert found.survival
    ends = dataclasses.replace(found.ends, shortest=2, longest=2)
    assert not dataclasses.replace(found, ends=ends).survival, "all episodes are equally long"


def test_ends_weigh_as_they_come_however_rare() -> None:
    rare = dataclasses.replace(seen("fine").ends, rate=0.01)
    found = dataclasses.replace(seen("fine"), ends=rare)
    chosen = {c.setting: c.value for c in choices(found, "quick")}
    assert "memory_training.termination_weight" not in chosen
    assert MemoryTrainConfig().termination_weight == 1
    assert chosen["dream.termination"] == "sampled"


def test_time() -> None:
    fine, pendulum, slow, long = map(settings, ("fine", "pendulum", "slow", "long"))
    assert (fine["action_repeat"], fine["dream.horizon"]) == (1, 500)
    assert pendulum["dream.horizon"] == 200
    assert fine["experience.explore_steps"] is None
    assert slow["action_repeat"] > 1
    assert slow["dream.horizon"] <= 400 / slow["action_repeat"] + 1
    assert long["experience.explore_steps"] == 1000 * long["action_repeat"] or (
        long["experience.explore_steps"] is None
    )
    assert not {"dream.horizon", "experience.explore_steps"} & settings("fine", "smoke").keys()


def test_actions_are_held_so_that_an_episode_fits_a_dream() -> None:
    late = settings("late")
    assert (late["action_repeat"], late["dream.horizon"]) == (4, 525), "of 2100 steps"
    assert late["experience.explore_steps"] is None
    (said,) = (c for c in choices(seen("late"), "quick") if c.setting == "action_repeat")
    assert said.reason == "an episode of 2100 steps is longer than a dream of 525"
    own = dataclasses.replace(seen("late"), skip=4)
    assert choices(own, "quick")[0].value == 1, "the environment holds them itself"
    short = tuple(dataclasses.replace(reach, length=110) for reach in seen("late").reached)
    assert choices(dataclasses.replace(seen("late"), reached=short), "quick")[0].value == 2


def examination(*reached: Reach, box: bool = False) -> Examination:
    found = seen("pendulum" if box else "fine")
    return dataclasses.replace(found, reached=reached)


def test_exploration_is_what_reaches_most() -> None:
    # as measured on CartPole: choices that last bring the pole down sooner
    pole = [Reach("uniform", "uniform", 0.0, 7, 22.1, 1.1, 0.0, 22.1)]
    pole += [
        Reach(f"kept {rate}", "sticky", rate, 7, length, 1.1, 0.0, length)
        for rate, length in ((0.5, 19.0), (0.7, 16.0), (0.9, 11.6))
    ]
    found = {c.setting: c.value for c in choices(examination(*pole), "quick")}
    assert found["experience.explore_rho"] in (0.0, 0.5)
    # a room in which only choices that last find a reward
    room = [dataclasses.replace(r, length=100.0, rewarded=r.value / 100) for r in pole]
    found = {c.setting: c.value for c in choices(examination(*room), "quick")}
    assert found["experience.explore_rho"] == 0.9


def test_choices_are_kept_as_long_whatever_a_decision_lasts() -> None:
    """A choice kept with 0.9 a step is kept with 0.9^4 where an action is held for four."""
    walk = [Reach("uniform", "uniform", 0.0, 7, 200.0, 1.0, 0.0, 0.0)]
    walk.append(Reach("kept 0.9", "sticky", 0.9, 7, 200.0, 9.0, 0.0, 0.0))
    for repeat, keep, burst in ((1, 0.9, 20), (4, 0.656, 5)):
        found = {c.setting: c.value for c in choices(examination(*walk), "quick", repeat)}
        assert found["experience.explore_rho"] == keep
        assert found["experience.burst_steps"] == burst  # a tenth of an episode


def test_scales_that_fall_are_left_out() -> None:
    noise = [
        Reach(f"noise {scale}", "noise", scale, 4, length, 2.0, 1.0, 0.0)
        for scale, length in ((0.25, 100.0), (0.5, 90.0), (1.0, 20.0))
    ]
    found = {c.setting: c.value for c in choices(examination(*noise, box=True), "quick")}
    assert found["experience.explore_scales"] == (0.25, 0.5)


def test_choices_get_no_residual_in_short_runs() -> None:
    assert settings("fine")["residual.enabled"] is False
    assert settings("fine", "full")["residual.enabled"] is False
    assert "residual.enabled" not in settings("pendulum")


@pytest.mark.parametrize("kind", ["fine", "pendulum"])
def test_full_collects_more_and_learns_for_longer_where_rare_ends_decide(kind: str) -> None:
    ends = dataclasses.replace(seen(kind).ends, rate=0.01, terminated=5, shortest=20)
    pay = dataclasses.replace(seen(kind).rewards, commonest=1.0, high=1.0, share=0.6)
    found = dataclasses.replace(seen(kind), ends=ends, rewards=pay)
    assert "iterations" not in {c.setting for c in choices(found, "full")}  # rewards decide
    found = dataclasses.replace(found, rewards=dataclasses.replace(pay, share=0.99, at_ends=True))
    short, whole = (
        {c.setting: c.value for c in choices(found, preset)} for preset in ("quick", "full")
    )
    for name in ("explore_episodes", "agent_episodes"):
        assert whole[f"experience.{name}"] == 4 * short[f"experience.{name}"]
    assert "iterations" not in short
    assert (whole["iterations"], whole["from_scratch.memory_steps"]) == (3, 20_000)
    assert whole["selection.late_iterations"] == whole["from_scratch.iterations"] == 1
    if kind == "fine":  # its actions are choices
        assert whole["residual.enabled"] is True
        assert whole["residual.training.gradient"] == "reinforce"
        assert whole["residual.training.max_length"] == whole["dream.horizon"]
    else:
        assert "residual.enabled" not in whole


def test_m_learns_from_its_own_predictions_where_rewards_come_all_the_time() -> None:
    chosen = settings("pendulum")
    assert chosen["memory_training.own_inputs"] == 0.5
    assert chosen["memory_training.steps"] == 6000, "frames are few"
    rare = dataclasses.replace(seen("pendulum").ends, rate=0.01, terminated=5)
    many = choices(dataclasses.replace(seen("pendulum"), ends=rare), "quick")
    assert {c.setting: c.value for c in many}["memory_training.steps"] == 12_000
    assert chosen["from_scratch.iterations"] == 0, "what was trained for so long is kept"
    smoke = settings("pendulum", "smoke")
    assert smoke["memory_training.own_inputs"] == 0.5 and "memory_training.steps" not in smoke
    assert "iterations" not in smoke
    assert "memory_training.own_inputs" not in settings("fine")
    goal = settings("goal")
    assert goal["memory_training.own_inputs"] == 0.5 and "memory_training.steps" not in goal
    assert goal["memory_training.own_inputs_from"] == "posterior"
    assert goal["memory_training.own_inputs_after"] == 0.5
    assert goal["from_scratch.memory_steps"] == 12_000
    assert "from_scratch.memory_steps" not in settings("goal", "smoke")
    assert "memory_training.own_inputs_from" not in chosen


def test_few_frames_teach_where_rewards_come_all_the_time() -> None:
    quick, full, smoke = (settings("pendulum", preset) for preset in ("quick", "full", "smoke"))
    length = max(reach.length for reach in seen("pendulum").random)
    for chosen in (quick, full):
        assert chosen["experience.explore_episodes"] == max(32, math.ceil(6000 / length))
        assert chosen["experience.agent_episodes"] == max(8, math.ceil(4000 / length))
    assert (quick["selection.episodes"], quick["selection.early_episodes"]) == (8, 1)
    assert quick["iterations"] == 4 and "iterations" not in full
    evolve = PRESETS["quick"]("Pendulum-v1").controller.evolve
    assert quick["controller.evolve.snapshot_every"] == evolve.generations, "one check of C"
    assert quick["selection.late_iterations"] == 1 and "selection.final_episodes" not in quick
    assert full["selection.episodes"] == 32, "the best agent is chosen with care"
    assert not [name for name in smoke if name.startswith("selection.") and name.endswith("s")]
    ends = dataclasses.replace(seen("pendulum").ends, rate=0.01, terminated=5)
    rare = dataclasses.replace(seen("pendulum"), ends=ends)
    found = {choice.setting: choice.value for choice in choices(rare, "quick")}
    assert found["selection.episodes"] == 32
    assert found["experience.explore_episodes"] * length > 100_000, "its rare ends take many"


def test_few_frames_are_doubled_where_a_flip_is_known() -> None:
    assert "horizontal_flip" not in settings("pendulum"), "the task of these tests knows none"
    found = dataclasses.replace(seen("pendulum"), symmetric=True)
    for preset in PRESETS:
        assert {c.setting: c.value for c in choices(found, preset)}["horizontal_flip"] is True
    many = dataclasses.replace(seen("fine"), symmetric=True)
    assert "horizontal_flip" not in {c.setting for c in choices(many, "quick")}
    assert PENDULUM.flips(FrameSpec()) and not PENDULUM.flips(FrameSpec(crop=(8, 0, 0, 0)))


def test_limits_where_episodes_end_by_themselves() -> None:
    clock, frail = settings("clock"), settings("frail")
    assert clock["experience.explore_steps"] == 1000 * clock["action_repeat"]
    assert clock["selection.max_steps"] == clock["test.max_steps"] == 20_480
    assert frail["selection.max_steps"] == frail["test.max_steps"] == 10_000
    assert "test.max_steps" not in settings("fine")
    assert not {"selection.max_steps", "test.max_steps"} & settings("clock", "smoke").keys()
    levels = {one.text: one.level for one in findings(seen("clock"))}
    (note,) = (text for text in levels if "no time limit" in text)
    assert levels[note] == "note" and "longest seen: 2048" in note


def test_what_truncates_itself_lasts_no_longer() -> None:
    """As MiniGrid does, which registers no limit."""
    ends = dataclasses.replace(seen("frail").ends, truncated=2, longest=245)
    found = dataclasses.replace(seen("frail"), ends=ends)
    made = choices(found, "quick", action_repeat=1)
    (horizon,) = (one for one in made if one.setting == "dream.horizon")
    assert horizon.value == 245
    assert horizon.reason.startswith("episodes are truncated after 245 steps")
    (note,) = (one.text for one in findings(found) if "time limit" in one.text)
    assert note == "it registers no time limit, but truncates at 245 steps"


def test_episodes_that_are_long_are_fewer() -> None:
    """None ends early, and the limit of 3,000 steps is 750 decisions: whole ones are collected."""
    found = settings("drawn out")
    assert (found["action_repeat"], found["experience.explore_steps"]) == (4, None)
    assert found["experience.explore_episodes"] == 64


def test_smoke_runs_where_episodes_have_one_step() -> None:
    smoke = PRESETS["smoke"](name_of("two steps"))
    assert smoke.experience.explore_episodes >= smoke.vision_training.batch_size


def test_where_a_goal_pays() -> None:
    found = settings("goal")
    assert (found["starts.beginnings"], found["dream.temperature"]) == (0.5, 0.1)
    assert found["experience.agent_frames"] == 60_000
    assert found["memory_training.reward_weight"] == 100
    assert (found["dream.horizon"], found["dream.discount"]) == (70, 0.986)
    assert found["controller.inputs"] == "zhc"
    assert found["controller.components"] == 128
    evolve = {name: found[f"controller.evolve.{name}"] for name in ("generations", "restart_every")}
    assert evolve == {"generations": 960, "restart_every": 160}, "six searches"
    assert (found["selection.early_episodes"], found["selection.final_episodes"]) == (64, 128)
    assert found["selection.episodes"] == 64
    assert found["memory.reward"] == "event"
    assert found["experience.agent_random_starts"] == 0.5
    assert found["experience.explore_steps"] is None
    assert found["experience.agent_steps"] == 10 * seen("goal").ends.shortest == 70
    for kind in ("fine", "pendulum", "take cover", "never"):
        assert not {"starts.beginnings", "experience.agent_frames"} & settings(kind).keys()
    assert "experience.agent_frames" not in settings("goal", "smoke")


def test_a_loss_at_the_end_is_no_event() -> None:
    lost = dataclasses.replace(seen("goal").rewards, low=-1.0)
    found = dataclasses.replace(seen("goal"), rewards=lost)
    assert found.goal and "memory.reward" not in {c.setting for c in choices(found, "quick")}
    assert "memory.reward" not in settings("take cover")


def test_what_can_be_reached_at_most_is_enough() -> None:
    assert settings("fine")["selection.enough"] == 500
    for kind in ("pendulum", "take cover", "goal", "never"):
        assert "selection.enough" not in settings(kind)
