"""What an environment hands out is what it declared, or one clear error says where it is not."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from baselines.pixels import PixelConfig
from baselines.ppo import FrameCounter
from baselines.training_env import Reporting, TrainingEnv, check_environment
from tests.envs.odd import CASES, LENGTH, ODD, Odd
from worldmodels import cli, envs
from worldmodels.evaluation import evaluate
from worldmodels.experience import rollout
from worldmodels.experience.collect import CollectConfig, collect
from worldmodels.experience.exploration import AR1Config, RandomControllerConfig
from worldmodels.experience.rollout import run_group
from worldmodels.experience.store import EpisodeStore
from worldmodels.presets import PRESETS
from worldmodels.protocols import UserError
from worldmodels.video import VideoConfig, replay

SEED = 7
WORKS = [name for name, case in CASES.items() if not case.at_make and not case.at_step]
SHADES = [20 * t for t in range(LENGTH + 1)]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.at_make])
def test_what_cannot_be_learnt_is_refused_at_make(name: str) -> None:
    with pytest.raises(UserError, match=CASES[name].at_make) as caught:
        envs.make(ODD, case=name)
    assert "environment 'tests/Odd-v0'" in str(caught.value)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.at_step])
def test_a_broken_promise_is_told_at_the_step_that_shows_it(name: str) -> None:
    with pytest.raises(UserError, match=CASES[name].at_step) as caught:
        evaluate("random", ODD, [SEED], workers=1, env_kwargs={"case": name})
    assert "environment 'tests/Odd-v0'" in str(caught.value)


@pytest.mark.parametrize("name", WORKS)
def test_what_is_right_is_recorded_as_it_was(name: str, tmp_path: Path) -> None:
    """Every frame, through collection, evaluation and replay, and every action in its own type."""
    kwargs = {"case": name}
    out = tmp_path / "episodes"
    for behaviour in (AR1Config(), RandomControllerConfig()):
        cfg = CollectConfig(group=1)
        collect(cfg, ODD, behaviour, [SEED], out / type(behaviour).__name__, env_kwargs=kwargs)
        episode = EpisodeStore([out / type(behaviour).__name__]).read(0)
        assert episode.obs[:, 0, 0, 0].tolist() == SHADES
    result = evaluate("random", ODD, [SEED], workers=1, env_kwargs=kwargs, keep_actions=True)
    assert result.returns == (LENGTH,)
    recording = replay(ODD, result.episodes[0], kwargs)
    assert recording.frames[:, 0, 0, 0].tolist() == SHADES
    assert recording.frames.ndim == 4 and recording.frames.shape[3] in (1, 3)
    env = rollout.shared_envs(ODD, 1, kwargs)[0]
    bare: Any = env.unwrapped
    assert len(bare.taken) == LENGTH
    assert all(bare.action_space.contains(action) for action in bare.taken)


@pytest.mark.parametrize("name", ["one buffer", "two buffers", "views"])
def test_frames_belong_to_the_caller(name: str) -> None:
    env = envs.make(ODD, case=name)
    frames = [env.reset(seed=SEED)[0]]
    frames += [env.step(np.zeros(2, np.float32))[0] for _ in range(LENGTH)]
    assert [int(frame[0, 0, 0]) for frame in frames] == SHADES


def test_new_frames_are_not_copied() -> None:
    env = envs.make("worldmodels/CarRacing-v3")
    bare: Any = env.unwrapped
    env.reset(seed=SEED)
    for _ in range(2):
        env.step(np.zeros(3, np.float32))
    assert env.step(np.zeros(3, np.float32))[0] is bare.state


def test_it_is_transparent() -> None:
    env = envs.make("worldmodels/CarRacing-v3", continuous=False)
    inner: Any = env
    inner = inner.env
    assert env.spec is inner.spec
    assert env.observation_space is inner.observation_space
    assert env.action_space is inner.action_space
    bare: Any = env.unwrapped
    assert bare.draws_observations
    assert gym.make(env.spec).unwrapped.__class__ is bare.__class__


@pytest.mark.parametrize("name", ["fine", "one buffer"])
def test_copies_do_what_the_original_does(name: str) -> None:
    env = envs.make(ODD, case=name)
    env.reset(seed=SEED)
    env.step(np.zeros(2, np.float32))
    for other in [copy.deepcopy(env), env]:
        frames = [other.step(np.zeros(2, np.float32))[0] for _ in range(2)]
        assert [int(frame[0, 0, 0]) for frame in frames] == SHADES[2:4]


def test_the_wrapper_can_be_pickled() -> None:
    env = envs.make("tests.experience.fakes:fakes/Pixels-v0")
    env.reset(seed=SEED)
    other = pickle.loads(pickle.dumps(env))
    action = np.zeros(2, np.float32)
    assert np.array_equal(env.step(action)[0], other.step(action)[0])


def test_actions_are_checked_too() -> None:
    for name, action, said in (
        ("fine", np.zeros(3, np.float32), r"action is float32 \(3,\) .*in step 1 of seed 7"),
        ("whole numbers", np.zeros(2, np.float32), "action is float32 .*int64"),
        ("choices from 5", 0, r"action is int 0 .*Discrete\(3, start=5\)"),
    ):
        env = envs.make(ODD, case=name)
        env.reset(seed=SEED)
        with pytest.raises(UserError, match=said):
            env.step(action)


def test_instances_must_agree() -> None:
    pool = [envs.make(ODD), envs.make(ODD, case="grey")]
    with pytest.raises(UserError, match=r"instance 1 has frames \(12, 16\)"):
        run_group(pool, Still(), [1, 2])


def test_an_environment_that_cannot_be_made_is_one_line() -> None:
    with pytest.raises(UserError, match=r"cannot be made with .*KeyError: 'no such case'"):
        envs.make(ODD, case="no such case")


class Still:
    """Takes action 0."""

    def start(self, seeds: Any) -> None: ...

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        return np.zeros((len(active), 2))


# --- baselines


@pytest.mark.parametrize("name", ["grey", "grey with a channel"])
def test_a_baseline_sees_grey_frames(name: str) -> None:
    env = TrainingEnv(envs.make(ODD, case=name), PixelConfig(skip=2, size=8, stack=2), None, 1, 0)
    env.reset()
    stack = env.step(np.zeros(2, np.float32))[0]
    assert stack.shape == (2, 8, 8)
    assert set(np.unique(stack[0])) <= {0}
    assert set(np.unique(stack[1])) <= {39, 40}  # grey is cut to whole numbers


def test_a_process_of_a_baseline_tells_its_error_in_the_infos() -> None:
    wrapped = envs.make(ODD, case="failure")
    env = Reporting(TrainingEnv(wrapped, PixelConfig(size=8, stack=1), None, 1, 0))
    env.reset()
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(4)]
    assert ["error" in info for *_, info in steps] == [False, False, True, True]
    obs, _, terminated, _, info = steps[2]
    assert (obs.shape, terminated) == ((1, 8, 8), True)
    assert "failed in step 3" in info["error"]
    assert env.reset()[0].shape == (1, 8, 8)
    counter = FrameCounter()
    counter.locals = {"infos": [info]}
    with pytest.raises(UserError, match="failed in step 3"):
        counter._on_step()


def test_a_baseline_refuses_what_it_cannot_learn() -> None:
    with pytest.raises(UserError, match=r"no time limit.*register it with max_episode_steps"):
        check_environment(ODD)
    gym.register(
        "tests/OddChoices-v0",
        entry_point="tests.envs.odd:Odd",
        max_episode_steps=4,
        kwargs={"case": "choices from 5"},
    )
    with pytest.raises(UserError, match=r"Stable-Baselines3 knows no .*start=5"):
        check_environment("tests/OddChoices-v0")


# --- films


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_become_pictures_in_colour(channels: int) -> None:
    from worldmodels.video.drawing import compose

    frame = np.full((12, 16, channels), 200, np.uint8)
    sheet = compose([frame], ["real"], ["line"], VideoConfig().panel)
    assert sheet.shape[2] == 3
    assert sheet[60, 76].tolist() == [200, 200, 200]


# --- endless episodes


def test_time_limits_are_found() -> None:
    assert envs.time_limit(envs.make("worldmodels/CarRacing-v3")) == 1000
    assert envs.time_limit(envs.make(ODD)) is None
    assert envs.time_limit(envs.make(ODD, max_episode_steps=9)) == 9
    assert envs.time_limit(TimeLimit(Odd(), 5)) == 5


@pytest.mark.parametrize(
    ("frames", "skip", "steps"), [(108_000, 4, 27_000), (10, 4, 3), (108_000, (2, 5), None)]
)
def test_an_emulators_own_limit_counts(frames: int, skip: Any, steps: int | None) -> None:
    env = Odd()
    env.spec = gym.envs.registration.EnvSpec(
        "tests/Emulator-v0", kwargs={"max_num_frames_per_episode": frames, "frameskip": skip}
    )
    assert envs.time_limit(env) == steps


def test_ataris_limit_is_found() -> None:
    pytest.importorskip("ale_py")
    assert envs.time_limit(envs.make("ale_py:ALE/Pong-v5")) == 27_000


def test_what_may_never_end_is_said_at_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate("random", ODD, [SEED], workers=1)
    assert "note: environment 'tests/Odd-v0' has no time limit" in capsys.readouterr().out
    evaluate("random", ODD, [SEED], workers=1, max_steps=3)
    evaluate("random", ODD.replace("Odd-", "OddLimited-"), [SEED], workers=1)
    assert "note" not in capsys.readouterr().out


def test_a_long_episode_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "TELL_SECONDS", 0.0)
    run_group([envs.make(ODD, length=10**9)], Still(), [SEED], max_steps=30)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 30
    assert lines[-1].startswith("seeds 7 to 7: 29 steps in 0 s, 1 of 1 episodes still running")


def test_a_run_needs_a_limit_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["run", "--preset", "quick", "--env", ODD, "--out", str(out), "--workers", "1"]
    words.append("--no-check")
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "no time limit, so an episode may never end: give --max-steps" in said
    assert "experience.agent_steps, selection.max_steps, test.max_steps" in said
    assert not out.exists()
    assert cli.main([*words, "--max-steps", "0"]) == 2
    assert "--max-steps is 0; it must be at least 1" in capsys.readouterr().err


def test_a_limit_holds_in_every_stage() -> None:
    cfg = PRESETS["quick"]().limited(90)
    assert (cfg.experience.explore_steps, cfg.experience.agent_steps) == (90, 90)
    assert (cfg.selection.max_steps, cfg.test.max_steps) == (90, 90)
    assert PRESETS["quick"]().limited(400).experience.explore_steps == 250
    assert PRESETS["full"]().limited(None) == PRESETS["full"]()
