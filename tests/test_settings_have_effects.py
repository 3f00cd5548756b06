"""Whatever a command shows is read while it works, or refused where it would have no effect."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

from baselines import control, evolution, ppo, settings
from tests.experience.fakes import BOX
from tests.sinks import stand_in
from worldmodels import cli
from worldmodels.commands import help, parsing
from worldmodels.config import Fields
from worldmodels.presets import PRESETS, smoke
from worldmodels.protocols import UserError
from worldmodels.run_config import DEFAULT_ENV, RunConfig
from worldmodels.stages import LatentsFile

PASSIVE = ("dataclasses.py", "_jsonable.py", "copy.py", "<string>")
"""Files whose reads copy or describe a configuration, and do not use it."""


def small(env_id: str = DEFAULT_ENV, task: object = None) -> RunConfig:
    """The smoke preset, smaller still, with nothing switched off that reads settings."""
    cfg = smoke()
    training = dataclasses.replace(cfg.residual.training, steps=2, actors=1, critic_warmup_steps=1)
    return dataclasses.replace(
        cfg,
        env_id=BOX,
        test_env_id=BOX,
        made_for=None,
        horizontal_flip=False,
        memory_training=dataclasses.replace(cfg.memory_training, own_inputs=0.5),
        experience=dataclasses.replace(cfg.experience, agent_snapshots="selected"),
        selection=dataclasses.replace(cfg.selection, max_steps=8),
        residual=dataclasses.replace(cfg.residual, training=training),
        test=dataclasses.replace(cfg.test, max_steps=8, videos=False),
        starts=dataclasses.replace(cfg.starts, off_track_weight=2.0),
        dream=dataclasses.replace(cfg.dream, backend="torch"),
    )


class Reads:
    """Fields of configurations that were read by what works with them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch, self._watched = monkeypatch, set[type]()
        self.seen: set[tuple[type, str]] = set()

    def watch(self, kind: type) -> None:
        """Note every read of the fields of a dataclass, whoever holds the object."""
        if kind in self._watched:
            return
        self._watched.add(kind)
        names = {field.name for field in dataclasses.fields(kind)}
        seen = self.seen

        def read(self: Any, name: str) -> Any:
            if name in names and type(self) is kind and not _is_passive():
                seen.add((kind, name))
            return object.__getattribute__(self, name)

        self._patch.setattr(kind, "__getattribute__", read, raising=False)


def _is_passive() -> bool:
    """Whether a field is read to be copied, hashed, described or checked."""
    frame = sys._getframe(2)
    if frame.f_code.co_filename.endswith(PASSIVE) or "/tyro/" in frame.f_code.co_filename:
        return True
    for _ in range(5):
        if frame.f_code.co_name in ("__post_init__", "ignored"):
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


def leaves(config: Any, command: Any, path: Fields = ()) -> Iterator[tuple[type, str]]:
    """Every field that the command line shows, as its class and its name."""
    for field in dataclasses.fields(config):
        value, inner = object.__getattribute__(config, field.name), (*path, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, command, inner)
        elif help.option_name(command, inner) not in command.unused:
            yield type(config), field.name


def kind_of(name: str) -> Any:
    return cli.COMMANDS[name].load()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read: a run of two iterations, and every file of the staged commands."""
    out = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "small", small)
        patch.setenv("OMP_NUM_THREADS", "1")
        for words in staged(out):
            assert cli.main(words) == 0, words
    return out


def line(text: str, out: Path, made: Path) -> list[str]:
    return [word.format(out=out, made=made) for word in text.split()]


def staged(out: Path) -> list[list[str]]:
    lines = (
        "collect --preset small --env-id " + BOX + " --out {out}/e --workers 1",
        "train-vision --preset small --data {out}/e --out {out}/v.pt",
        "encode --data {out}/e --vision {out}/v.pt --out {out}/z.safetensors",
        "train-memory --preset small --latents {out}/z.safetensors --out {out}/m.pt "
        "--memory.reward event",
        "train-controller --preset small --vision {out}/v.pt --memory {out}/m.pt "
        "--latents {out}/z.safetensors --out {out}/agent",
    )
    return [line(text, out, out) for text in lines]


SMALL = "--preset small"
LOG = "--log tensorboard wandb"
PLANNER = "--episodes 1 --workers 1 --max-steps 2 --planning.objective.particles 2"
SEARCH = "--planning.cem.samples 4 --planning.cem.iterations 2"
TRAINING = (
    "--training.steps 2 --training.batch_size 4 --training.horizon 2 --training.checkpoint-every 1 "
    "--training.log-every 1"
)
FILES = "--vision {made}/v.pt --memory {made}/m.pt --latents {made}/z.safetensors"
OPTIONAL = (
    "--controller.evolve.strategy.name pepg --dream.ensemble per_step "
    "--dream.disagreement-limit 99 --dream.no-event-penalty 0.5 --starts.off-track-weight 2 "
    "--controller.evolve.seconds 99"
)
LINES: dict[str, tuple[str, ...]] = {
    "check": (BOX,),
    "run": (
        f"{SMALL} --no-check --out {{out}}/run --workers 1 --memory.ensemble 2 "
        f"--memory.reward event --iterations 3 --from-scratch.iterations 1 {OPTIONAL} {LOG}",
    ),
    "collect": (
        f"{SMALL} --env-id {BOX} --out {{out}}/e --workers 1 --run {{out}}/r --bias 0 0",
        f"{SMALL} --env-id {BOX} --out {{out}}/f --workers 1 --agent {{made}}/agent --episodes 2",
    ),
    "train-vision": (
        f"{SMALL} --data {{made}}/e --out {{out}}/v.pt --run {{out}}/r {LOG}",
        f"{SMALL} --data {{made}}/e --out {{out}}/w.pt --init {{out}}/v.pt",
    ),
    "encode": ("--data {made}/e --vision {made}/v.pt --out {out}/z.safetensors --run {out}/r",),
    "train-memory": (
        f"{SMALL} --latents {{made}}/z.safetensors --out {{out}}/m.pt --run {{out}}/r {LOG}",
        f"{SMALL} --latents {{made}}/z.safetensors {{made}}/z.safetensors --out {{out}}/n.pt "
        "--init {out}/m.pt",
    ),
    "train-controller": (
        f"{SMALL} {FILES} --out {{out}}/a --run {{out}}/r {LOG}",
        f"{SMALL} --vision {{made}}/v.pt --memory {{made}}/m.pt {{made}}/m.pt --latents "
        "{made}/z.safetensors {made}/z.safetensors --out {out}/b --init {made}/agent " + OPTIONAL,
    ),
    "evaluate": (
        f"--agent {{made}}/agent --policy icem {PLANNER} {SEARCH} --json {{out}}/j --run {{out}}/r",
        f"--agent {{made}}/agent --policy mppi {PLANNER} --planning.mppi.samples 4",
        f"--agent {{made}}/agent --policy gradient {PLANNER} --planning.gradient.iterations 2",
        f"--agent {{made}}/agent --policy rollout {PLANNER} --planning.rollout.changes 2",
    ),
    "plan": (
        f"--agent {{made}}/agent --decisions 2 {SEARCH} --json {{out}}/j --video {{out}}/p.mp4",
        "--agent {made}/agent --decisions 2 --policy mppi --planning.mppi.samples 4",
        "--agent {made}/agent --decisions 2 --policy gradient --planning.gradient.iterations 2",
        "--agent {made}/agent --decisions 2 --policy rollout --planning.rollout.changes 2",
    ),
    "train-policy": (
        f"--agent {{made}}/agent --out {{out}}/p {TRAINING} --run {{out}}/r {LOG}",
        f"--agent {{made}}/agent --policy residual --out {{out}}/q {TRAINING} --training.actors 2",
        "--agent {made}/agent --policy imitation --out {out}/i --imitation.dreams 1 "
        f"--imitation.decisions 2 --imitation.epochs 1 {SEARCH}",
        "--agent {made}/agent --policy imitation --out {out}/j --imitation.dreams 1 --planner mppi "
        "--imitation.decisions 2 --imitation.epochs 1 --planning.mppi.samples 4",
        "--agent {made}/agent --policy imitation --out {out}/k --imitation.dreams 1 "
        "--planner gradient --imitation.decisions 2 --imitation.epochs 1",
        "--agent {made}/agent --policy imitation --out {out}/l --imitation.dreams 1 "
        "--planner rollout --imitation.decisions 2 --imitation.epochs 1",
    ),
    "ensemble": ("{made}/agent {made}/agent --out {out}/c",),
    "play": (
        "--agent {made}/agent --video {out}/a.mp4 --max-steps 3",
        "--agent {made}/agent --video {out}/b.mp4 --max-steps 3 --dream",
    ),
    "export-web": ("{made}/agent --out {out}/d.html --no-real",),
    "report": ("--run {made}/e",),
    "study": (),
    "sweep": (),
    "export-minari": (),
    "compare": (),
    **dict.fromkeys(("baseline", "baseline-evolve"), ()),  # below
    **dict.fromkeys(("gan", "gan-vae", "gan-limits", "gan-score", "sparse"), ()),
}
"""Lines of every command that read all of its settings between them."""

ELSEWHERE = {
    "preset": "chooses the defaults (tests/test_cli.py)",
    "variants": "tests/pipeline/test_study.py",
}
"""Fields that act before the command does."""


def test_every_command_is_here() -> None:
    assert set(LINES) == set(cli.COMMANDS)


CHANGES = (
    "--starts.newest-weight 9",
    "--starts.off-track-weight 9 --starts.off-track-streak 1",
    "--starts.off-track-weight 9 --starts.off-track-streak 3",
    "--starts.off-track-weight 9 --starts.off-track-streak 3 --starts.off-track-before 1",
    "--memory {made}/m.pt {made}/m.pt",
    "--init {made}/agent",
)
"""Settings of which each gives another agent; the first version of the command ignored them."""


def test_what_train_controller_is_told_changes_the_agent(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "small", small)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file, found = LatentsFile.load(made / "z.safetensors"), set()
    paid = np.random.default_rng(0).random(file.latents.num_frames) < 0.3
    lost = dataclasses.replace(file.latents, reward=np.where(paid, 1, -0.1).astype(np.float32))
    dataclasses.replace(file, latents=lost).save(tmp_path / "z.safetensors")
    parts = FILES.replace("{made}/z", "{out}/z") + " {out}/z.safetensors"
    for number, change in enumerate(("", *CHANGES)):
        text = f"train-controller {SMALL} {parts} --out {{out}}/{number} "
        assert cli.main(line(text + change, tmp_path, made)) == 0
        names = ("starts", "memory", "controller")
        found.add(b"".join((tmp_path / f"{number}/{n}.safetensors").read_bytes() for n in names))
    assert len(found) == 1 + len(CHANGES)


REFUSED = (
    ("train-vision --data {made}/e --out {out}/x --vision-training.finetune-steps 3", "--init"),
    (
        "train-vision --data {made}/e --out {out}/x --init {made}/v.pt --vision-training.steps 3",
        "from scratch",
    ),
    ("train-memory --latents {made}/z.safetensors --out {out}/x --memory.newest-repeats 3", "one"),
    (
        "train-memory --latents {made}/z.safetensors --out {out}/x "
        "--memory-training.finetune-learning-rate 0.1",
        "--init",
    ),
    (f"train-controller {FILES} --out {{out}}/x --starts.newest-weight 3", "one file of latents"),
    (
        f"train-controller {SMALL} {FILES} --out {{out}}/x --starts.off-track-weight 1 "
        "--starts.off-track-streak 3",
        "starts.off-track-weight is 1",
    ),
    ("collect --out {out}/x --noise 0.1", "no agent acts"),
    ("collect --out {out}/x --agent {made}/agent --scale 0.1", "an agent acts"),
    ("collect --out {out}/x --agent {made}/agent --action-repeat 2", "the agent brings its own"),
    ("collect --out {out}/x --behaviour brownian --rho 0.5", "behaviour is brownian"),
    ("evaluate --agent random --planning.objective.horizon 3", "controller does not plan"),
    ("evaluate --agent {made}/agent --policy mppi --planning.cem.samples 9", "planner is mppi"),
    ("evaluate --agent {made}/agent --policy mppi --weights {out}/x", "uses no critic"),
    ("plan --agent {made}/agent --planning.mppi.samples 9", "the planner is icem"),
    ("play --agent {made}/agent --dream --env x --video {out}/x.mp4", "a dream has no environment"),
    ("train-policy --agent {made}/agent --planner cem", "it is for imitation"),
    ("train-policy --agent {made}/agent --policy imitation --training.steps 3", "its own"),
    (
        "train-policy --agent {made}/agent --policy policy-network --training.lambda 0.5",
        "policy-network has no critic",
    ),
    ("study {made}/run --variants hot:selection.episodes=3", "has no effect in a study"),
    ("study {made}/run --variants hot:memory_training.finetune-steps=3", "has no effect"),
)


@pytest.mark.parametrize(("text", "reason"), REFUSED, ids=lambda text: text[:60])
def test_what_would_have_no_effect_is_refused(
    text: str, reason: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "small", small)
        assert cli.main(line(text, tmp_path, made)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "has no effect" in told
    assert reason in told
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        "train-vision --data x --out y --vision-training.finetune-iterations 2",
        "train-controller --vision v --memory m --latents z --out y "
        "--controller.memory-iterations 2",
        "train-controller --vision v --memory m --latents z --out y --controller.no-warm-start",
        "train-policy --agent a --training.no-critic",
    ],
)
def test_what_only_a_run_uses_is_not_shown(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *rest = words.split()
    assert cli.main([name, *rest]) == 2
    error = capsys.readouterr().err
    assert "has no effect here" in error and error.count("\n") == 1
    flag = next(word for word in rest if "." in word).replace("no-", "")
    assert cli.main([name, "--help-all"]) == 0
    assert not re.search(rf"{flag}(?![-\w])", capsys.readouterr().out)


@pytest.mark.parametrize("name", [name for name, lines in LINES.items() if lines])
def test_what_a_command_shows_is_read(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "small", small)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    sinks, reads, shown = stand_in(monkeypatch), Reads(monkeypatch), set[tuple[type, str]]()
    for text in LINES[name]:
        words = line(text, tmp_path, made)
        command = parsing.parse(kind_of(name), words, name)
        fields = set(leaves(command, type(command)))
        shown |= {(kind, field) for kind, field in fields if field not in ELSEWHERE}
        for kind, _ in fields:
            reads.watch(kind)
        command.execute()
    unread = sorted(f"{kind.__name__}.{field}" for kind, field in shown - reads.seen)
    assert not unread, ", ".join(unread)
    assert sinks.filled() == ("log" in {field for _, field in shown})


@pytest.mark.parametrize(
    ("modules", "kinds"),
    [
        ((ppo, settings, control), (settings.TrainConfig,)),
        ((evolution,), (evolution.EvolutionConfig, evolution.DriveConfig)),
    ],
)
def test_a_baseline_uses_all_of_its_settings(modules: Any, kinds: Any) -> None:
    source = "".join(map(inspect.getsource, modules))
    for field in (field for kind in kinds for field in dataclasses.fields(kind)):
        used = rf"(cfg|self)\.{field.name}\b|cfg\.drive\b"
        assert re.search(used, source), field.name


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--recipe", "v3", "--horizon", "9"], "it is for recipe dream"),
        (["--recipe", "dream", "--agent", "a", "--env", "x"], "brings its own environment"),
        (["--recipe", "dream", "--agent", "a", "--workers", "3"], "dreams run in this process"),
        (["--recipe", "zoo", "--action-repeat", "2"], "it is for recipe default"),
        (["--run", "a", "--max-steps", "2"], "the run has its own"),
        (["--test-episodes", "2"], "it is for --run"),
    ],
)
def test_a_baseline_refuses_what_its_recipe_ignores(words: list[str], reason: str) -> None:
    cfg = tyro.cli(settings.TrainConfig, args=words)
    with pytest.raises(UserError, match=reason):
        parsing.refuse_ignored(cfg.ignored(), parsing.read_flags(words))
