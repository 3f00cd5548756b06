"""What a few episodes show, the verdict, and the settings that follow."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import io
import json
import math
import re
import runpy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from tests.envs.blocks import KINDS, Fake, name_of
from tests.envs.odd import CASES, LENGTH, ODD
from worldmodels import cli
from worldmodels.commands import check as command
from worldmodels.commands.collect import Collect
from worldmodels.commands.parsing import parse
from worldmodels.commands.run import Run
from worldmodels.envs.frames import FrameSpec
from worldmodels.presets import PRESETS, quick
from worldmodels.protocols import UserError
from worldmodels.run_config import changed
from worldmodels.runs import RunFolder, to_jsonable
from worldmodels.tasks import Task, register_task, task_for
from worldmodels.tasks import task as records
from worldmodels.tasks.choices import choices
from worldmodels.tasks.default import EPISODES, PLAYED_OUT, STEPS, measure
from worldmodels.tasks.examination import Examination, Reach
from worldmodels.tasks.findings import findings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this process knows the ids of these tests."""
    monkeypatch.setattr(command, "measure_in_worker", measure)


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
        assert found.steps <= STEPS + (PLAYED_OUT if kind == "endless" else 0)
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


def test_m_learns_from_its_own_predictions_where_rewards_come_all_the_time() -> None:
    chosen = settings("pendulum")
    assert chosen["memory_training.own_inputs"] == 0.5
    assert chosen["memory_training.steps"] == 12_000
    assert chosen["from_scratch.iterations"] == 0, "what was trained for so long is kept"
    smoke = settings("pendulum", "smoke")
    assert smoke["memory_training.own_inputs"] == 0.5 and "memory_training.steps" not in smoke
    assert "memory_training.own_inputs" not in settings("fine")
    assert "memory_training.own_inputs" not in settings("goal")


def test_few_frames_teach_where_rewards_come_all_the_time() -> None:
    quick, full, smoke = (settings("pendulum", preset) for preset in ("quick", "full", "smoke"))
    length = max(reach.length for reach in seen("pendulum").random)
    for chosen in (quick, full):
        assert chosen["experience.explore_episodes"] == max(32, math.ceil(20_000 / length))
        assert chosen["experience.agent_episodes"] == max(8, math.ceil(5000 / length))
    assert (quick["selection.episodes"], quick["selection.early_episodes"]) == (16, 2)
    assert quick["iterations"] == 2 and "iterations" not in full
    assert quick["selection.late_iterations"] == 1 and "selection.final_episodes" not in quick
    assert full["selection.episodes"] == 32, "the best agent is chosen with care"
    assert not [name for name in smoke if name.startswith("selection.") and name.endswith("s")]
    ends = dataclasses.replace(seen("pendulum").ends, rate=0.01, terminated=5)
    rare = dataclasses.replace(seen("pendulum"), ends=ends)
    found = {choice.setting: choice.value for choice in choices(rare, "quick")}
    assert found["selection.episodes"] == 32
    assert found["experience.explore_episodes"] * length > 100_000, "its rare ends take many"


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
        ("endless", "refused", "no episode ended within 10000 steps.*--max-steps"),
        ("clock", "ok", "it can be learnt"),
        ("two steps", "warning", "longer than 2 steps|nothing says which policy is better"),
        ("last", "warning", "all whole episodes have the same return: nothing says which"),
        ("never", "warning", "no reward came.*TransformReward"),
        ("unseeded", "warning", r"nothing can be reproduced.*np_random"),
    ],
)
def test_verdict(kind: str, level: str, says: str) -> None:
    found = verdict(kind)
    assert found[0] == level
    assert re.search(says, found[1])


@pytest.mark.parametrize("name", CASES)
def test_what_is_odd_is_taken_or_refused_in_one_line(name: str) -> None:
    case, env_id = CASES[name], f"{ODD}?case={quote(name)}"
    fault = case.at_make or case.at_step.replace("seed 7", r"seed \d+")
    if fault:
        with pytest.raises(UserError, match=fault) as caught:
            measure(env_id)
        assert "\n" not in str(caught.value)
        return
    found = measure(env_id)
    assert findings(found)[0].text.startswith("every step pays 1 and all episodes are equally long")
    assert (found.ends.longest, found.ends.limit, found.repeatable) == (LENGTH, None, True)


def test_notes() -> None:
    texts = {kind: " ".join(f.text for f in findings(seen(kind))) for kind in KINDS}
    assert "no reward is above 0" in texts["negative"]
    assert "no reward is above 0" in texts["pendulum"]
    assert "begin with the same frame" in texts["same"]
    assert "the return is how long the episode lasts" in texts["fine"]
    assert "longer than 2 steps" in texts["two steps"]
    assert "pay 4 but some last ones: the return is how long the episode" in texts["take cover"]
    assert "rare" not in texts["take cover"]


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
    # whoever has seen no episode end does not know what ends pay
    assert settings("drawn out")["memory_training.reward_weight"] == 10
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
    ends = dataclasses.replace(seen(kind).ends, rate=0.01, terminated=5)
    pay = dataclasses.replace(seen(kind).rewards, commonest=1.0, share=0.6, at_ends=False)
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


def run_module(path: Path, text: str) -> None:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("written", path)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_the_module_that_is_written_registers_the_task(tmp_path: Path) -> None:
    found = seen("rare")
    run_module(tmp_path / "written.py", command.module(found))
    try:
        task = task_for(name_of("rare"))
        assert task.name == "fakerare-v0"
        assert dict(task.settings["quick"]) == {c.setting: c.value for c in choices(found, "quick")}
        assert PRESETS["quick"](name_of("rare")).dream.termination == "sampled"
    finally:
        records._TASKS.pop("fakerare-v0")
        records._look.cache_clear()


@pytest.mark.parametrize("frames", [None, FrameSpec(crop=(8, 0, 0, 0))])
def test_the_module_of_a_known_environment_keeps_what_is_known(
    frames: FrameSpec | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_TASKS", dict(records._TASKS))
    own = Task("known", crop=(1, 0, 0, 0), solved=9.0, settings={"smoke": {"action_repeat": 3}})
    register_task(own, "tests/FakeRare-v0")
    found = seen("rare")
    text = command.module(found, frames)
    run_module(tmp_path / "written.py", text)
    task = task_for(name_of("rare"))
    assert (task.name, task.solved) == ("known", 9.0)
    assert task.crop == ((1, 0, 0, 0) if frames is None else (8, 0, 0, 0))
    assert task.settings["smoke"] == {"action_repeat": 3}
    chosen = {c.setting: c.value for c in choices(found, "quick")}
    assert task.settings["quick"] == task.settings["full"] == chosen
    records._look.cache_clear()


def test_what_cannot_be_learnt_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", name_of("black")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {name_of('black')}: all frames are black")
    assert said.err.count("\n") == 1


def test_check_takes_what_run_takes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def note(*args: Any, **kw: Any) -> Examination:
        asked.append((*args, *kw.values()))
        return measure(*args, **kw)

    monkeypatch.setattr(command, "measure_in_worker", note)
    written = tmp_path / "task.py"
    words = ["--env-kwargs", '{"kind": "rare"}', "--crop", "2", "0", "3", "1", "--frame-rows", "30"]
    words += ["--action-repeat", "2", "--max-steps", "60", "--write", str(written)]
    assert cli.main(["check", "--env", name_of("fine"), *words]) == 0
    assert asked == [(f"{name_of('fine')}?kind=rare", 0, 60, 30, (2, 0, 3, 1))]
    said = capsys.readouterr().out
    assert "  dream.horizon = 30: the time limit is 60 steps" in said
    assert "  action_repeat = 2: as you say" in said
    assert f"--env 'task:{name_of('fine')}?kind=rare'" in said
    assert "rows=30, crop=(2, 0, 3, 1), settings=" in written.read_text()
    assert cli.main(["check", name_of("fine"), "--obs-key", "screen"]) == 2
    assert "its observations are no Dict" in capsys.readouterr().err


def test_a_crop_reaches_v(tmp_path: Path) -> None:
    cfg = parsed(tmp_path, "fine", "--crop", "8", "0", "4", "4").config
    assert cfg.frame_spec.crop == (8, 0, 4, 4)
    assert cfg.frame_spec.rows is None
    with pytest.raises(Exception, match=r"crop .* must leave something of frames of 32x48"):
        parsed(tmp_path / "none", "fine", "--crop", "32", "0", "0", "0")
    assert not (tmp_path / "none").exists()


def test_the_table_of_the_docs_is_what_is_said() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks/check_table.py"))
    pages = (ROOT / "docs/your-own-environment.md").read_text(encoding="utf-8")
    for env_id, words in script["ENVIRONMENTS"].items():
        assert f"| {words or '`' + env_id.rpartition(':')[2] + '`'} |" in pages
    for kind, words in (
        ("black", "black frames"),
        ("white", "a dead-white screen"),
        ("negative", "negative rewards"),
        ("two steps", "episodes of two steps"),
        ("never", "a reward that never comes"),
    ):
        found = seen(kind)
        assert script["row"](words, found, findings(found)) in pages.splitlines()


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
    assert RunFolder(out).ledger.read()["totals"]["collection"] == record.examination.steps
    lines = list(record.lines(first.config))
    assert any(line.startswith("  dream.horizon = 77, as you say (not 500: ") for line in lines)
    assert lines[0].startswith("warning: ")
    # resumed, nothing is measured again
    (out / "config.json").write_text("{}")
    monkeypatch.setattr(
        command, "measure_in_worker", lambda *_, **__: pytest.fail("measured again")
    )
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
    monkeypatch.setattr(command, "measure_in_worker", lambda *_, **__: pytest.fail("measured"))
    plain = parsed(tmp_path / "a", "fine", "--no-check")
    assert plain.config == PRESETS["quick"](name_of("fine"))
    assert not (tmp_path / "a").exists()
    # a run that was begun without
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text("{}")
    assert parsed(tmp_path / "b", "fine").config == plain.config
    # CarRacing, whose task is registered
    words = ["--preset", "quick", "--out", str(tmp_path / "c")]
    assert parse(Run, words, "").config == PRESETS["quick"]()
    with pytest.raises(SystemExit):
        parse(Run, ["--env", name_of("fine"), "--help"], "")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_run_that_can_learn_nothing_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Exception, match=r"all frames are white.*--no-check runs it all the same"):
        parsed(out, "white")
    assert not out.exists()
    parsed(out, "white", "--no-check")
    with pytest.raises(Exception, match=r"no episode ended within 10000 steps.*give --max-steps"):
        parsed(out, "endless")
    assert not out.exists()


# --- no time limit, but episodes that end


def test_an_episode_is_played_to_its_end_where_none_has_ended() -> None:
    assert seen("clock").ends.natural == 2048
    assert (seen("clock").ends.limit, seen("clock").ends.longest) == (None, 2048)
    assert seen("endless").ends.natural is None
    for kind in ("fine", "pendulum", "frail", "long", "drawn out"):
        assert seen(kind).ends.natural is None, kind


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
    found = choices(dataclasses.replace(seen("frail"), ends=ends), "quick", action_repeat=1)
    (horizon,) = (one for one in found if one.setting == "dream.horizon")
    assert horizon.value == 245
    assert horizon.reason.startswith("episodes are truncated after 245 steps")


def test_a_run_asks_for_no_limit_where_episodes_end(tmp_path: Path) -> None:
    cfg = parsed(tmp_path, "clock").config
    assert None not in cfg.limits().values()
    assert cfg.limited(500).test.max_steps == 500


def test_episodes_that_are_long_are_fewer() -> None:
    """None ends while it is looked at, so how long they are is the limit's to say."""
    found = settings("drawn out")
    frames = found["experience.explore_episodes"] * min(3000, found["experience.explore_steps"])
    assert 100_000 < frames <= 150_000


# --- the user's action repeat


def test_what_counts_decisions_follows_the_users_action_repeat(tmp_path: Path) -> None:
    cfg = parsed(tmp_path, "fine", "--action-repeat", "5").config
    assert (cfg.action_repeat, cfg.dream.horizon) == (5, 100)
    record = command.load(tmp_path, name_of("fine"), "quick")
    assert record is not None
    assert "  action_repeat = 5: as you say (1 by what is seen: " in "\n".join(record.lines(cfg))
    # the same run resumed, with another one and without
    (tmp_path / "config.json").write_text("{}")
    assert parsed(tmp_path, "fine", "--action-repeat", "5").config == cfg
    assert parsed(tmp_path, "fine", "--action-repeat", "2").config.dream.horizon == 250
    assert parsed(tmp_path, "fine").config.dream.horizon == 500
    record = command.load(tmp_path, name_of("fine"), "quick")
    assert record is not None
    assert record.action_repeat is None
