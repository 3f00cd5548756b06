"""Command lines of every subcommand, with hostile values in one or two places.

The commands run in earnest up to the work itself, which is cut off: the point is what is refused
before it. What a command accepts must then be enough to build the networks that it would train.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_type_hints
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st

from tests.experience.fakes import BOX
from tests.fuzz import artefacts
from tests.fuzz.guard import Broken, Verdict, command, elsewhere
from tests.fuzz.mutations import LONG, Tree
from worldmodels import cli
from worldmodels._from_json import from_json
from worldmodels.commands import parsing
from worldmodels.memory.kinds import build
from worldmodels.presets import smoke
from worldmodels.run_config import RunConfig
from worldmodels.runs import config_hash, to_jsonable
from worldmodels.stage_configs import MemoryStageConfig
from worldmodels.video import VideoConfig
from worldmodels.vision.vae import ConvVAE, VAEConfig

NUMBERS = (
    *("0", "1", "2", "-1", "-3", "0.5", "-0.5", "-0", "1e400", "-1e400", "nan", "inf", "-inf"),
    *("1e300", "1e-300", "1_000", "٣", "0x10", "1000000000000", "9" * 30, "<digits>"),
)
WORDS = (
    *("", " ", "None", "True", "False", "x", "é☃", "[/b]", "[bold]", "a b", "a=b", "-", "--", "'"),
    *(
        "\0",
        "x\ny",
        "{",
        "\udcff",
        "%s",
        "x" * 300,
        "CarRacing-v3",
        "module:Id-v0",
        "no.such:Id-v0",
        "icem",
    ),
    *("tests.experience.fakes:fakes/PixelsDiscrete-v0", "quick", "cuda", "gradient", "residual"),
)
PATHS = (
    "",
    ".",
    "..",
    "missing",
    "a/b/c",
    "[/b]",
    "noext",
    "x.mp4",
    "folder",
    "file",
    "pipe",
    "\0",
)
"""Relative, so that nothing outside of the working folder can be replaced."""

READ_ONLY = ("/dev/null", "/dev/zero", "/", "/proc/self/mem", "/etc/passwd")
"""For flags that name what is read."""

OUTPUTS = ("out", "json", "video", "run")
"""Flags that name what is written."""


@dataclass(frozen=True)
class Line:
    """A command line: the words of a valid one, and what is changed in it."""

    command: str
    changes: tuple[tuple[int, str, str], ...]
    """(which flag, how, new value)"""

    def words(self) -> list[str]:
        """The words after `worldmodels`."""
        words = list(base(self.command))
        names = flags_of(self.command)
        for pick, how, value in self.changes:
            name, pool = names[pick % len(names)]
            if pick % 5 and how != "word":
                value = pool[pick // 5 % len(pool)]
            if (
                name.startswith("--")
                and name[2:].split(".")[-1] in OUTPUTS
                and value.startswith("/")
            ):
                value = PATHS[pick % len(PATHS)]
            if how == "set":
                words = [*without(words, name), name, value]
            elif how == "equals":
                words = [*without(words, name), f"{name}={value}"]
            elif how == "several":
                words = [*without(words, name), name, value, value]
            elif how == "bare":
                words += [name]
            elif how == "drop":
                words = without(words, name)
            elif how == "word" and not value.startswith("/"):
                words += [value]
        return [self.command, *(word.replace("<digits>", LONG["<digits>"]) for word in words)]


def without(words: list[str], name: str) -> list[str]:
    """The words without a flag and its values."""
    kept, skipping = [], False
    for word in words:
        if word.startswith("--"):
            skipping = word == name
        if not skipping:
            kept.append(word)
    return kept


def base(name: str) -> list[str]:
    """A valid command line, on the artefacts in the working folder."""
    smoke_env = f"--preset smoke --env {BOX}"
    files = "--vision v.pt --memory m.pt --latents z.safetensors"
    small = "--planning.horizon 2 --planning.population 4 --planning.iterations 1 --decisions 1"
    return {
        "check": BOX,
        "run": f"{smoke_env} --out new --workers 1 --no-check",
        "collect": f"{smoke_env} --out new --workers 1 --episodes 1",
        "train-vision": "--preset smoke --data e --out new",
        "encode": "--data e --vision v.pt --out new",
        "train-memory": "--preset smoke --latents z.safetensors --out new",
        "train-controller": f"--preset smoke {files} --out new --dream.backend torch",
        "evaluate": f"--agent agent --env {BOX} --episodes 1 --workers 1 --json new.json",
        "plan": f"--agent agent --json new.json {small}",
        "train-policy": "--agent agent --out new",
        "ensemble": "agent agent --out new",
        "study": "run --out new --workers 1",
        "compare": "first=evaluation.json second=evaluation.json --no-pictures",
        "report": "--run run",
        "export-web": "agent --no-real --out new.html",
        "export-minari": "--data e --dataset a/b-v0",
        "play": f"--agent agent --env {BOX} --video new.mp4 --max-steps 3",
        "baseline": f"--env {BOX} --out new --frames 16",
        "baseline-evolve": "--agent agent --out new",
        "gan": "--source images --data folder --out new",
        "gan-vae": "--data e --out new",
        "gan-limits": "--out new",
        "gan-score": "--gan new --agent agent --data e",
        "sparse": "--method dictionary --data e --out new",
    }[name].split()


def flags_of(name: str) -> list[tuple[str, tuple[str, ...]]]:
    """Every flag of a command, those of nested settings too, with values for it."""
    if name not in _FLAGS:
        found = list(_flags(cli.COMMANDS[name].load(), ""))
        _FLAGS[name] = [f for f in found if "." not in f[0]] * 3 + found
    return _FLAGS[name]


_FLAGS: dict[str, list[tuple[str, tuple[str, ...]]]] = {}


def _flags(cls: type, prefix: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        name = (prefix + field.name.rstrip("_")).replace("_", "-")
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _flags(kind, "" if kind is RunConfig else f"{name}.")
        elif kind is bool:
            yield f"--{name}", ("True", "x")
            yield f"--{prefix}no-{field.name}".replace("_", "-"), ("False",)
        else:
            text = str(kind)
            number = "int" in text or "float" in text
            yield f"--{name}", NUMBERS if number else PATHS if "Path" in text else WORDS


LINES = st.builds(
    Line,
    st.sampled_from([*cli.COMMANDS]),
    st.lists(
        st.tuples(
            st.integers(0, 10**6),
            st.sampled_from(["set"] * 6 + ["equals", "several", "bare", "drop", "word"]),
            st.sampled_from(NUMBERS * 2 + WORDS + PATHS + READ_ONLY),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
)

CUTS = (
    "worldmodels.stages.collect",
    "worldmodels.stages.train_vision",
    "worldmodels.stages.train_memory",
    "worldmodels.stages.controller.DreamEvolution.run",
    "worldmodels.commands.planning.train_policies",
    "worldmodels.commands.planning.collect_decisions",
    "worldmodels.commands.study.Study.cell",
    "baselines.commands.train",
    "baselines.commands.evolve_in_reality",
    "sparse_gan.commands.train",
    "sparse_gan.commands.compare",
    "sparse_gan.commands.run_limits",
    "sparse_gan.commands.train_sparse",
)
"""Where the work begins, and ends here."""


def check(line: Line) -> Verdict:
    """Run a command line up to its work; small evaluations, plans and films are done."""
    from worldmodels.evaluation import run as evaluation
    from worldmodels.video import plans

    replaced = {
        "worldmodels.pipeline.run_pipeline": _begin,
        "worldmodels.commands.parsing.parse": _noting(parsing.parse),
        "worldmodels.evaluation.run._run": _if_small(evaluation._run),
        "worldmodels.commands.planning.plan_in_dream": _if_small(plans.plan_in_dream),
        "worldmodels.commands.play.Play._reality": _frames,
        "worldmodels.commands.play.Play._dream": _frames,
        "worldmodels.commands.play.dream_page": lambda *_: None,
    }
    with _prepared(), ExitStack() as stack:
        for name in CUTS:
            stack.enter_context(mock.patch(name, _done))
        for name, work in replaced.items():
            stack.enter_context(mock.patch(name, work))
        return command(*line.words())


def _done(*_: Any, **__: Any) -> Any:
    raise SystemExit(0)


def _if_small(work: Callable[..., Any]) -> Callable[..., Any]:
    """The work itself, where it takes no time."""

    def wrapped(*args: Any) -> Any:
        if work.__name__ == "plan_in_dream":
            cfg = args[0].cfg
            small = cfg.horizon * cfg.population * cfg.iterations <= 5000 and args[1] <= 3
        else:
            small = len(args[2]) == 1 and args[1].args[1].env_id == BOX
        return work(*args) if small else _done()

    return wrapped


def _frames(*_: Any) -> tuple[list[Any], VideoConfig, int]:
    return [np.zeros((16, 16, 3), np.uint8)] * 2, VideoConfig(), 2


def _begin(cfg: RunConfig, out: Path, seed: int, place: Any, *_: Any) -> Path:
    place.make()
    return out


def _noting(parse: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: _noted(parse(*args))


def _noted(cmd: Any) -> Any:
    """The parsed command, after a look at what its later stages will be given."""
    _finite(cmd, type(cmd).__name__)
    cfg = getattr(cmd, "config", None)
    if isinstance(cfg, RunConfig):
        if from_json(RunConfig, json.loads(json.dumps(to_jsonable(cfg)))) != cfg:
            raise Broken("a configuration is another one after it was written and read")
        config_hash(cfg)
    memory, vision = getattr(cfg or cmd, "memory", None), getattr(cfg or cmd, "vision", None)
    if isinstance(memory, MemoryStageConfig):
        network = memory.network(4, 2, "raw")
        if max(network.hidden_size, network.mixtures) < 10_000:
            with torch.device("meta"):
                build(network)
    if isinstance(vision, VAEConfig) and max(vision.z_dim, vision.width) < 1000:
        with torch.device("meta"):
            ConvVAE(vision)
    return cmd


def _finite(value: Any, where: str) -> None:
    """Refuse numbers that no setting means."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Broken(f"{where} is {value} and was accepted")
    if isinstance(value, int) and abs(value) >= 2**63 and not where.endswith("seed"):
        raise Broken(f"{where} is {str(value)[:40]} and was accepted")
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _finite(getattr(value, field.name), f"{where}.{field.name}")
    elif isinstance(value, tuple):
        for item in value:
            _finite(item, where)


@lru_cache
def _run_config() -> bytes:
    return json.dumps({"schema": 1, "config": to_jsonable(smoke())}).encode()


@contextmanager
def _prepared() -> Iterator[Path]:
    trees: Mapping[str, Tree] = {
        "agent": artefacts.agent(),
        "e": artefacts.shards(),
        "run": {"config.json": _run_config()},
        "[/b]": artefacts.agent(),
        ".": {
            "[/b].json": artefacts.run()["evaluation.json"],
            **artefacts.stage_files(),
            "evaluation.json": artefacts.run()["evaluation.json"],
        },
    }
    with elsewhere() as here:
        for name, tree in trees.items():
            artefacts.write_tree(tree, here / name)
        (here / "folder").mkdir()
        (here / "file").write_text("text")
        os.mkfifo(here / "pipe")
        yield here
