"""`worldmodels check`: what an environment shows, and the settings that follow.

`worldmodels run` does the same at its start and keeps the record in `check.json`, since an
environment that cannot be reproduced would suggest other settings when the run is resumed.
"""

from __future__ import annotations

import functools
import json
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import tyro

from worldmodels import envs
from worldmodels._outputs import Output
from worldmodels.commands.parsing import DEFAULT_PRESET, Command, PresetName, json_object
from worldmodels.config import Count, Repeat, Seed, Size
from worldmodels.envs.frames import Crop, FrameSpec
from worldmodels.presets import PRESETS
from worldmodels.protocols import UserError
from worldmodels.run_config import RunConfig
from worldmodels.runs import FilePath, RunFolder, atomic_write, read_json, to_jsonable, write_json
from worldmodels.tasks import DEFAULT, task_for
from worldmodels.tasks.choices import Choice, choices
from worldmodels.tasks.default import measure_in_worker
from worldmodels.tasks.examination import Examination
from worldmodels.tasks.findings import Finding, findings

CHECK = "check.json"
"""File of the record in a run folder."""
PicturePath = Annotated[Path, Output(suffix=".png")]
ModulePath = Annotated[Path, Output(suffix=".py")]


class _Record(TypedDict):
    env_id: str
    preset: str
    examination: dict[str, Any]
    findings: list[dict[str, Any]]
    choices: list[dict[str, Any]]
    action_repeat: NotRequired[int | None]


@dataclass(frozen=True)
class Record:
    """An examination with what follows from it for one preset."""

    env_id: str
    preset: str
    examination: Examination
    findings: tuple[Finding, ...]
    choices: tuple[Choice, ...]
    action_repeat: int | None = None
    """the user's, which the choices follow; None where they choose it"""

    @classmethod
    def of(cls, examination: Examination, preset: str, action_repeat: int | None = None) -> Record:
        """What follows for a preset, and for the user's action repeat."""
        found, made = findings(examination), choices(examination, preset, action_repeat)
        return cls(examination.env_id, preset, examination, found, made, action_repeat)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, in the form of `Task.settings`."""
        return {choice.setting: choice.value for choice in self.choices}

    @property
    def refusal(self) -> str | None:
        """Why nothing can be learnt; None where something can."""
        texts = [finding.text for finding in self.findings if finding.level == "refused"]
        return texts[0] if texts else None

    def lines(self, cfg: RunConfig | None = None) -> Iterator[str]:
        """The findings, then the choices; those that a configuration has otherwise are marked."""
        for finding in self.findings:
            yield f"{finding.level}: {finding.text}"
        for choice in self.choices:
            own = choice.value
            if cfg is not None:
                own = functools.reduce(getattr, choice.setting.split("."), cfg)
            text = f"{_shown(choice.value)}: {choice.reason}"
            if own != choice.value:
                text = f"{_shown(own)}, as you say (not {text})"
            yield f"  {choice.setting} = {text}"


def load(out: Path, env_id: str, preset: str) -> Record | None:
    """The record in a run folder; None where there is none of this environment.

    Raises:
        UserError: it cannot be read.
    """
    path = out / CHECK
    if not path.exists():
        return None
    record = read_json(path, _Record)
    if record["env_id"] != env_id:
        return None
    try:
        examination = Examination.from_json(record["examination"])
        repeat = record.get("action_repeat")
        if record["preset"] != preset:
            return Record.of(examination, preset, repeat)
        found = tuple(Finding(**finding) for finding in record["findings"])
        made = tuple(Choice(**{**choice, "value": _value(choice)}) for choice in record["choices"])
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); start the run in a new folder") from error
    return Record(env_id, preset, examination, found, made, repeat)


def checked(
    out: Path,
    cfg: RunConfig,
    preset: str,
    max_steps: int | None = None,
    action_repeat: int | None = None,
) -> Record | None:
    """The record of a run's environment, made and kept in its folder where the run is new.

    Args:
        out: the run folder.
        cfg: the preset with what the user has set.
        preset: its name.
        max_steps: limit of episodes that the user has set.
        action_repeat: the user's; None where it is to be chosen.

    Returns:
        None where a registered task has settings of its own, and where the run was begun without.

    Raises:
        UserError: the environment cannot be made or breaks a promise, a setting does not fit it, or
            nothing can be learnt. Nothing is written.
    """
    from worldmodels.pipeline.fitting import require_fitting

    env_id = cfg.env_id
    if task_for(env_id).settings:
        return None
    if (out / "config.json").exists():
        former = load(out, env_id, preset)
        if former is None or former.action_repeat == action_repeat:
            return former
        record = Record.of(former.examination, preset, action_repeat)
        with RunFolder(out).lock():
            write_json(out / CHECK, to_jsonable(record))
        return record
    require_fitting(cfg)
    frames = cfg.frame_spec
    found = measure_in_worker(env_id, max_steps=max_steps, rows=frames.rows, crop=frames.crop)
    record = Record.of(found, preset, action_repeat)
    if record.refusal is not None:
        raise UserError(f"{env_id}: {record.refusal}; --no-check runs it all the same")
    run = RunFolder(out)
    with run.lock():
        write_json(out / CHECK, to_jsonable(record))
        run.ledger.add("collection", record.examination.steps, "check")
    return record


@dataclass(frozen=True)
class Check(Command):
    """Play a few episodes of an environment, say what they show, and choose settings by it.

    The verdict comes first, with what helps, then each setting with its reason. `worldmodels run`
    does the same at its start. Ends with status 2 where nothing can be learnt.
    """

    env: tyro.conf.Positional[str]
    """Gymnasium id, or module:id to import a module that registers it first"""
    preset: PresetName
    """whose settings are chosen"""
    obs_key: str | None = None
    """which of several images in its observations V sees"""
    env_kwargs: str = "{}"
    """JSON object of arguments of the environment: '{"frame_skip": 4}'"""
    seed: Seed = 0
    """chooses the training seeds that are played, and the actions"""
    max_steps: Count | None = None
    """longest episode; needed where episodes never end"""
    action_repeat: Repeat | None = None
    """environment steps per action, which the settings follow (default: chosen)"""
    frame_rows: Size | None = None
    """rows of the frames that V sees, from the top (default: the task's, or all)"""
    crop: Crop | None = None
    """pixels of the frames to crop at the top, bottom, left and right (default: the task's, or
    none)"""
    json: FilePath | None = None
    """write all figures to this JSON file"""
    picture: PicturePath | None = None
    """write what V would see at four moments of an episode to this PNG"""
    write: ModulePath | None = None
    """write a Python module that registers the task with these settings"""

    @property
    def env_id(self) -> str:
        """The id with its arguments, as `run` keeps it."""
        key = {} if self.obs_key is None else {"obs_key": self.obs_key}
        return envs.with_kwargs(self.env, {**json_object("--env-kwargs", self.env_kwargs), **key})

    def execute(self) -> None:
        """Play, print, write."""
        env_id = self.env_id
        frames = task_for(env_id).frame_spec.changed(self.frame_rows, self.crop)
        found = measure_in_worker(
            env_id, seed=self.seed, max_steps=self.max_steps, rows=frames.rows, crop=frames.crop
        )
        record = Record.of(found, self.preset, self.action_repeat)
        if self.json is not None:
            write_json(self.json, to_jsonable(record))
        if self.picture is not None:
            self.picture.parent.mkdir(parents=True, exist_ok=True)
            self.picture.write_bytes(found.png)
        if record.refusal is not None:
            raise UserError(f"{env_id}: {record.refusal}")
        print("\n".join([*replace(record, choices=()).lines(), "", *seen(found), ""]))
        task = task_for(env_id)
        if task.settings:
            print(f"the registered task {task.name!r} decides; without it these settings would:")
        print("\n".join(replace(record, findings=()).lines()))
        if self.write is not None:
            atomic_write(self.write, module(found, frames, self.action_repeat))
            again = shlex.quote(str(replace(envs.parse(env_id), module=self.write.stem)))
            print(f"task: {self.write}; worldmodels run --env {again}")

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Any) -> Check:
        """The usual preset; the environment must be given."""
        return cls(env=tyro.MISSING, preset=flags.get("preset", DEFAULT_PRESET))


def seen(found: Examination) -> Iterator[str]:
    """The figures, in a few lines."""
    frames, ends, pay = found.frames, found.ends, found.rewards
    size = "x".join(map(str, frames.shape))
    yield (
        f"frames: {size}, {frames.kind}, brightness {frames.mean:.0f} +- {frames.std:.0f}; a step "
        f"changes {frames.changed:.2%} of the pixels"
    )
    limit = "no time limit" if ends.limit is None else f"time limit {ends.limit}"
    if ends.natural is not None:
        limit += f"; one that was played to its end has {ends.natural} steps"
    yield (
        f"episodes: {ends.terminated} terminated, {ends.truncated} truncated, {ends.cut} cut short "
        f"here; the longest has {ends.longest} steps; {limit}"
    )
    yield (
        f"rewards: {pay.low:g} to {pay.high:g}; {pay.share:.1%} of the steps pay {pay.commonest:g}"
    )
    for reach in found.reached:
        yield (
            f"  {reach.name} ({reach.episodes} x): {reach.length:.0f} steps, return "
            f"{reach.mean_return:.3g}, variety {reach.variety:.1f}"
        )
    rate = found.steps_per_second
    yield f"speed: {rate:.0f} steps per second, V's view included ({found.steps} steps played)"


def module(
    found: Examination, frames: FrameSpec | None = None, action_repeat: int | None = None
) -> str:
    """A Python module that registers a task with the settings of every preset but "smoke".

    Of a registered task it keeps all else. ``frames`` is what V sees (None: the task's).
    """
    parsed, known = envs.parse(found.env_id), task_for(found.env_id)
    source, name, builds = parsed.module, parsed.name, known is not DEFAULT
    frames = frames or known.frame_spec
    lines = [f'"""The task of {name}, from what `worldmodels check` saw."""', ""]
    lines += ["import dataclasses", ""] if builds else []
    lines += [f"import {source}  # noqa: F401  # registers the environment"] if source else []
    lines += ["import worldmodels"]
    lines += ["from worldmodels.tasks import task_for"] if builds else []
    lines += ["", "SETTINGS = {"]
    for choice in choices(found, DEFAULT_PRESET, action_repeat):
        value = choice.value
        text = f'"{value}"' if isinstance(value, str) else repr(value)
        reason = textwrap.wrap(f"# {choice.reason}", 90, subsequent_indent="# ")
        lines += [f"    {line}" for line in (*reason, f'"{choice.setting}": {text},')]
    lines += ["}", ""]
    presets = ", ".join(f'"{preset}": SETTINGS' for preset in PRESETS if preset != "smoke")
    start = f'worldmodels.Task("{name.rpartition("/")[2].lower()}"'
    if builds:
        lines.append(f"KNOWN = task_for({json.dumps(str(replace(parsed, module='')))})")
        start, presets = "dataclasses.replace(KNOWN", f"**KNOWN.settings, {presets}"
    view = "".join(
        f"{part}={getattr(frames, part)}, "
        for part in ("rows", "crop")
        if getattr(frames, part) != getattr(known, part)
    )
    lines.append(f"TASK = {start}, {view}settings={{{presets}}})")
    return "\n".join([*lines, f'worldmodels.register_task(TASK, "{name}")', ""])


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).lower() if value is None else str(value)


def _value(choice: dict[str, Any]) -> Any:
    value = choice["value"]
    return tuple(value) if isinstance(value, list) else value
