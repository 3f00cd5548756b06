"""What a few episodes show, the verdict, and the settings that follow."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import io
import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image

from worldmodels import cli
from worldmodels.commands import check as command
from worldmodels.commands.collect import Collect
from worldmodels.commands.parsing import parse
from worldmodels.commands.run import Run
from worldmodels.memory.rewards import RewardModel
from worldmodels.memory.train import fit_reward_model
from worldmodels.presets import PRESETS, changed, quick
from worldmodels.protocols import UserError
from worldmodels.runs import RunFolder, to_jsonable
from worldmodels.tasks import task as records
from worldmodels.tasks import task_for
from worldmodels.tasks.choices import choices, findings
from worldmodels.tasks.default import EPISODES, STEPS, Examination, Reach, measure


class Fake(gym.Env[Any, Any]):
    """A block on a line; a kind changes one thing about it."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # gymnasium's own convention

    def __init__(self, kind: str = "fine") -> None:
        self.kind = kind
        self.observation_space = spaces.Box(0, 255, (32, 48, 3), np.uint8)
        self.action_space: spaces.Space[Any] = spaces.Discrete(2)
        if kind == "pendulum":
            self.action_space = spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        rng = np.random.default_rng() if self.kind == "unseeded" else self.np_random
        self.x = 0.5 if self.kind == "same" else float(rng.uniform(0.4, 0.6))
        self.speed, self.t = 0.0, 0
        return self._frame(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Any]:
        self.t += 1
        push = float(np.ravel(action)[0]) / 2 if self.kind == "pendulum" else 2.0 * action - 1
        slow = {"slow": 0.01, "long": 0.05}.get(self.kind, 1.0)
        self.speed = 0.8 * self.speed + 0.02 * slow * push
        self.x += self.speed
        fell = not 0.1 < self.x < 0.9
        over = {"two steps": self.t >= 2, "endless": False, "pendulum": False}.get(self.kind, fell)
        self.x = float(np.clip(self.x, 0, 1))
        return self._frame(), self._reward(over), bool(over), False, {}

    def _reward(self, over: bool) -> float:
        if self.kind == "take cover":
            return 0.0 if over else 4.0
        pays = {"never": 0.0, "goal": float(over), "rare": float(self.t % 20 == 0)}
        pays |= {"negative": -1.0, "pendulum": -abs(self.x - 0.5) - 0.1, "slow": self.x}
        return pays.get(self.kind, 1.0)

    def _frame(self) -> Any:
        blind = {"black": 0, "white": 255, "stuck": 100}
        frame = np.full((32, 48, 3), blind.get(self.kind, 60), np.uint8)
        if self.kind not in blind:
            left = self.x * 40
            columns = np.arange(48)
            cover = np.minimum(columns + 1, left + 4) - np.maximum(columns, left)
            frame[10:16] += (190 * np.clip(cover, 0, 1)).astype(np.uint8)[:, None]
        return frame


LIMITS = {"pendulum": 200, "slow": 400, "long": 4000, "endless": None}
KINDS = (
    *("fine", "pendulum", "slow", "long", "endless", "same", "unseeded", "two steps"),
    *("take cover", "never", "goal", "rare", "negative", "black", "white", "stuck"),
)


def name_of(kind: str) -> str:
    return f"tests/Fake{kind.title().replace(' ', '')}-v0"


for _kind in KINDS:
    _limit = LIMITS.get(_kind, 500)
    if name_of(_kind) not in gym.registry:
        gym.register(
            name_of(_kind),
            entry_point=f"{__name__}:Fake",
            max_episode_steps=_limit,
            kwargs={"kind": _kind},
        )


@functools.cache
def seen(kind: str) -> Examination:
    return measure(name_of(kind))


def settings(kind: str, preset: str = "quick") -> dict[str, Any]:
    return {one.setting: one.value for one in choices(seen(kind), preset)}


def verdict(kind: str) -> tuple[str, str]:
    first = findings(seen(kind))[0]
    return first.level, first.text


# --- what is measured


def test_an_examination_is_bounded_and_the_same_each_time() -> None:
    for kind in ("fine", "pendulum", "endless"):
        found, again = seen(kind), measure(name_of(kind))
        assert found.steps <= STEPS
        assert sum(reach.episodes for reach in found.reached) <= EPISODES
        assert dataclasses.replace(again, steps_per_second=found.steps_per_second) == found
        assert choices(found, "quick") == choices(again, "quick")


def test_an_examination_survives_json() -> None:
    found = seen("pendulum")
    assert Examination.from_json(json.loads(json.dumps(to_jsonable(found)))) == found


def test_figures_of_a_pole() -> None:
    found = seen("fine")
    assert (found.frames.shape, found.frames.kind) == ((32, 48, 3), "colour")
    assert 60 < found.frames.mean < 90
    assert (found.frames.black, found.frames.white, found.frames.plain) == (0, 0, 0)
    assert 0 < found.frames.changed < 0.1
    assert found.rewards.constant
    assert found.rewards.commonest == 1
    ends = found.ends
    assert (ends.limit, ends.truncated) == (500, 0)
    assert ends.terminated + ends.cut == sum(reach.episodes for reach in found.reached)
    assert ends.terminated > 10
    assert found.repeatable
    assert not found.same_resets
    assert Image.open(io.BytesIO(found.png)).size == (4 * 64, 64)


def test_figures_of_a_pendulum() -> None:
    found = seen("pendulum")
    assert found.ends.terminated == 0
    assert found.ends.truncated > 0
    assert found.rewards.high < 0
    assert not found.rewards.constant


def test_seeds_are_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    reset = Fake.reset

    def note(env: Fake, **kwargs: Any) -> Any:
        seeds.append(kwargs["seed"])
        return reset(env, **kwargs)

    monkeypatch.setattr(Fake, "reset", note)
    measure(name_of("fine"))
    assert len(seeds) > 10
    assert all(0 <= seed < 400_000 for seed in seeds)


def test_limit_of_the_user_ends_episodes() -> None:
    found = measure(name_of("endless"), max_steps=20)
    assert (found.ends.limit, found.ends.longest, found.ends.cut) == (20, 20, 0)


# --- the verdict


@pytest.mark.parametrize(
    ("kind", "level", "says"),
    [
        ("fine", "ok", "it can be learnt"),
        ("pendulum", "ok", "it can be learnt"),
        ("goal", "ok", "it can be learnt"),
        ("black", "refused", "all frames are black.*render_mode"),
        ("white", "refused", "all frames are white"),
        ("stuck", "refused", "all frames are the same.*AddRenderObservation"),
        ("endless", "refused", "no episode ended within .*--max-steps"),
        ("two steps", "warning", "longer than 2 steps|every policy has the same return"),
        ("never", "warning", "no reward came.*TransformReward"),
        ("unseeded", "warning", r"nothing can be reproduced.*np_random"),
    ],
)
def test_verdict(kind: str, level: str, says: str) -> None:
    found = verdict(kind)
    assert found[0] == level
    assert re.search(says, found[1])


def test_notes() -> None:
    texts = {kind: " ".join(f.text for f in findings(seen(kind))) for kind in KINDS}
    assert "no reward is above 0" in texts["negative"]
    assert "no reward is above 0" in texts["pendulum"]
    assert "begin with the same frame" in texts["same"]
    assert "the return is how long the episode lasts" in texts["fine"]
    assert "longer than 2 steps" in texts["two steps"]


# --- the settings


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
    assert settings("goal")["memory_training.reward_weight"] > 2


def test_ends_weigh_more_where_they_are_rare() -> None:
    assert settings("pendulum")["memory_training.termination_weight"] == 1
    assert settings("long")["memory_training.termination_weight"] in (1, 10)
    rare = dataclasses.replace(seen("fine").ends, rate=0.01)
    found = dataclasses.replace(seen("fine"), ends=rare)
    weights = {c.setting: c.value for c in choices(found, "quick")}
    assert weights["memory_training.termination_weight"] == 10
    assert weights["dream.termination"] == "sampled"


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


def test_scales_that_fall_are_left_out() -> None:
    noise = [
        Reach(f"noise {scale}", "noise", scale, 4, length, 2.0, 1.0, 0.0)
        for scale, length in ((0.25, 100.0), (0.5, 90.0), (1.0, 20.0))
    ]
    found = {c.setting: c.value for c in choices(examination(*noise, box=True), "quick")}
    assert found["experience.explore_scales"] == (0.25, 0.5)


def test_choices_get_no_residual() -> None:
    assert settings("fine")["residual.enabled"] is False
    assert "residual.enabled" not in settings("pendulum")


def test_a_constant_reward_has_no_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "worldmodels.memory.train._rewards", lambda _: (np.full(9, 4.0, np.float32), 4.0, 1.0)
    )
    model: RewardModel = fit_reward_model(None, "raw")  # type: ignore[arg-type]  # it is not read
    assert model.expected(torch.tensor([3.0, -7.0])).tolist() == [4.0, 4.0]
    assert model.target(torch.tensor([4.0])).tolist() == [0.0]


# --- the command


def test_check_prints_the_verdict_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.json", "a.png", "a_task.py")]
    words = ["--json", str(files[0]), "--picture", str(files[1]), "--write", str(files[2])]
    assert cli.main(["check", name_of("fine"), *words]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("ok: ")
    assert any(line.startswith("  dream.horizon = 500: the time limit is") for line in lines)
    assert json.loads(files[0].read_text())["examination"]["env_id"] == name_of("fine")
    assert Image.open(files[1]).size == (256, 64)


def test_the_module_that_is_written_registers_the_task(tmp_path: Path) -> None:
    found = seen("rare")
    path = tmp_path / "written.py"
    path.write_text(command.module(found))
    spec = importlib.util.spec_from_file_location("written", path)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    try:
        task = task_for(name_of("rare"))
        assert task.name == "fakerare-v0"
        assert dict(task.settings["quick"]) == {c.setting: c.value for c in choices(found, "quick")}
        assert PRESETS["quick"](name_of("rare")).dream.termination == "sampled"
    finally:
        records._TASKS.pop("fakerare-v0")
        records._look.cache_clear()


def test_what_cannot_be_learnt_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", name_of("black")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {name_of('black')}: all frames are black")
    assert said.err.count("\n") == 1


# --- a run


def parsed(out: Path, kind: str, *words: str) -> Run:
    line = ["--preset", "quick", "--env", name_of(kind), "--out", str(out), *words]
    return parse(Run, line, "")


def test_a_run_takes_the_choices_and_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    first = parsed(out, "unseeded", "--dream.horizon", "77")
    assert first.config.memory.reward == "raw"
    assert first.config.dream.horizon == 77
    record = command.load(out, name_of("unseeded"), "quick")
    assert record is not None
    assert RunFolder(out).frames()["totals"]["collection"] == record.examination.steps
    lines = list(record.lines(first.config))
    assert any(line.startswith("  dream.horizon = 77, as you say (not 500: ") for line in lines)
    assert lines[0].startswith("warning: ")
    # resumed, nothing is measured again
    (out / "config.json").write_text("{}")
    monkeypatch.setattr(command, "measure", lambda *_, **__: pytest.fail("measured again"))
    assert parsed(out, "unseeded", "--dream.horizon", "77") == first
    assert command.load(out, name_of("fine"), "quick") is None


def test_a_preset_from_python_is_the_commands(tmp_path: Path) -> None:
    for kind in ("fine", "pendulum"):
        cfg = quick(name_of(kind))
        assert cfg.made_for == name_of(kind)
        assert dataclasses.replace(cfg, made_for=None) == parsed(tmp_path / kind, kind).config
    assert quick() == PRESETS["quick"]() and quick().made_for == "car-racing"
    with pytest.raises(UserError, match="all frames are white: there is nothing to see"):
        quick(name_of("white"))


def test_scales_of_choices_have_no_effect(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"explore-scales has no effect here: .* are choices"):
        parsed(tmp_path, "fine", "--experience.explore-scales", "0.3")
    parsed(tmp_path, "pendulum", "--experience.explore-scales", "0.3")
    words = ["--env", name_of("fine"), "--out", str(tmp_path / "e"), "--scale", "0.3"]
    with pytest.raises(UserError, match=r"--scale has no effect here: .* are choices"):
        parse(Collect, words, "")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    parsed(tmp_path, "fine")
    path = tmp_path / "check.json"
    record = json.loads(path.read_text())
    record["examination"]["frames"] = {}
    path.write_text(json.dumps(record))
    with pytest.raises(Exception, match=r"check\.json is damaged"):
        command.load(tmp_path, name_of("fine"), "quick")


def test_nothing_is_measured_where_it_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "measure", lambda *_, **__: pytest.fail("measured"))
    plain = parsed(tmp_path / "a", "fine", "--no-check")
    assert plain.config == PRESETS["quick"](name_of("fine"))
    assert not (tmp_path / "a").exists()
    # a run that was begun without
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text("{}")
    assert parsed(tmp_path / "b", "fine").config == plain.config
    # CarRacing, whose task is registered, and an episode without an end, which a run refuses
    words = ["--preset", "quick", "--out", str(tmp_path / "c")]
    assert parse(Run, words, "").config == PRESETS["quick"]()
    parsed(tmp_path / "d", "endless")
    with pytest.raises(SystemExit):
        parse(Run, ["--env", name_of("fine"), "--help"], "")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_run_that_can_learn_nothing_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Exception, match=r"all frames are white.*--no-check runs it all the same"):
        parsed(out, "white")
    assert not out.exists()
    parsed(out, "white", "--no-check")
