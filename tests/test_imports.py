"""The direction of imports: a stage knows what is to its left, never what is to its right."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LEAVES = [
    "protocols",
    "config",
    "_compile",
    "_shapes",
    "_jsonable",
    "_files",
    "artifacts",
    "_lock",
    "_outputs",
    "_progress",
    "_machine",
    "runs",
    "_training",
    "metrics",
    "executors",
]
STAGES = [
    "envs",
    "tasks",
    "policies",
    "experience",
    "vision",
    "memory",
    "dream",
    "controller",
    "evaluation",
    "planning",  # and the policies that act by it
    "video",
    "pages",
]
TOP = ["presets", "settings", "stages", "pipeline", "commands", "cli", "__main__"]
NETWORKS = [
    "worldmodels.vision.vae",
    "worldmodels.memory.mdn_rnn",
    "worldmodels.memory.mixture",
    "worldmodels.memory.transformer",
    "worldmodels.controller.linear",
]
SEAMS = {  # where sparse_gan touches the pipeline: one file for each thing that it takes
    "sparse_gan.data": {"envs", "experience"},
    "sparse_gan.gan.comparison": {"vision"},  # V is one of the two that are compared
    "sparse_gan.gan.dreams": {"agent", "dream", "dream.env", "vision"},
    "sparse_gan.gan.pictures": {"video"},
}

ACTING = tuple(f"worldmodels.policies.{n}" for n in ("ensemble", "learned", "opening", "planning"))
"""Policies that act by planners and trained networks."""

BASELINES = {
    # baselines that begin with an agent's V and M
    "baselines.dream": {"agent", "dream"},
    "baselines.evolution": {"agent", "controller", "experience"},
    # what a file of tensors holds is read in one place
    "baselines.drivers": {"artifacts"},
}
"""What single modules of `baselines` may import beside what all may."""


def allowed_in(part: str) -> set[str]:
    """Parts of `worldmodels` that one part may import besides itself."""
    if part == "":  # worldmodels/__init__.py hands these out when they are asked for
        return {"agent", "planning", "tasks"}
    if part in LEAVES:
        return set(LEAVES[: LEAVES.index(part)])
    if part == "controller":  # sees a ReturnFunction, wherever the returns come from
        return set(LEAVES)
    if part == "agent":
        return {*LEAVES, "envs", "policies", "vision", "memory", "dream", "controller"}
    if part == "dream.env":  # an agent's dream as an environment: Gymnasium's registry names it
        return {*LEAVES, "envs", "vision", "memory", "dream", "agent"}
    if part in STAGES:
        left = {*LEAVES, *STAGES[: STAGES.index(part)]}
        return left | {"agent"} if STAGES.index(part) > STAGES.index("controller") else left
    if part == "stages":  # the bodies: they know neither order nor flags
        return {*LEAVES, *STAGES, "agent", "presets"}
    if part in TOP:
        return {*LEAVES, *STAGES, "agent", "dream.env", *TOP}
    raise KeyError(f"worldmodels.{part} has no place in the order of imports yet: give it one here")


def part_of(module: str) -> str:
    """The part of `worldmodels` that a module belongs to ("" for the package itself)."""
    names = module.split(".")
    if names[1:3] == ["dream", "env"]:
        return "dream.env"
    if names[1:2] == ["_agent_files"]:
        return "agent"
    if module.startswith(ACTING):
        return "planning"
    return names[1] if len(names) > 1 else ""


def imported(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and full name of all that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, base] if base else package)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) == ("worldmodels", "Agent"):
                yield node.lineno, "worldmodels.Agent"


def is_allowed(module: str, target: str) -> bool:
    """Whether `module` may import `target` (a module, or a name in one)."""
    package, target_package = module.split(".")[0], target.split(".")[0]
    if target_package in ("scripts", "tests", "benchmarks"):
        return package == target_package == "tests"
    if target_package not in ("worldmodels", "baselines", "sparse_gan"):
        return True  # other people's libraries
    if target in ("worldmodels", "worldmodels.__version__"):
        return True
    if package in ("scripts", "tests", "benchmarks"):
        return True
    part = "agent" if target == "worldmodels.Agent" else part_of(target)
    if module in NETWORKS:
        own = (f"{module}.", "worldmodels.memory.interface.")  # and what it fulfils
        return part in ("protocols", "config") or target.startswith(own)
    if package == target_package == "worldmodels":
        return part == part_of(module) or part in allowed_in(part_of(module))
    if package == target_package:
        return package != "sparse_gan" or sparse_gan_may(module, target)
    if package == "baselines":
        common = {"config", "envs", "evaluation", "executors", "policies", "protocols", "runs"}
        common |= {"metrics", "pages"}  # the comparison is a page like any other
        return part in common | BASELINES.get(module, set())
    if package == "sparse_gan":
        return part in {"config", "pages", "protocols", "runs"} | SEAMS.get(module, set())
    return package == "worldmodels" and part_of(module) in TOP and target_package == "baselines"


def sparse_gan_may(module: str, target: str) -> bool:
    """Both halves meet in the energy; neither knows the other, and the energy knows neither."""
    part, other = ([*name.split("."), ""][1] for name in (module, target))
    if part == "energy":
        return False
    if part in ("coding", "gan"):
        return other != ("gan" if part == "coding" else "coding")
    return other not in ("coding", "gan")


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Describe each import in a file that goes the wrong way."""
    return [
        f"{module}, line {line}: may not import {target}"
        for line, target in imported(source, module, is_package)
        if not is_allowed(module, target)
    ]


def project_files() -> list[Path]:
    folders = ["worldmodels", "baselines", "sparse_gan", "scripts", "benchmarks", "tests"]
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", project_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_file_imports_only_to_its_left(path: Path) -> None:
    names = list(path.relative_to(ROOT).with_suffix("").parts)
    is_package = names[-1] == "__init__"
    module = ".".join(names[:-1] if is_package else names)
    assert violations(path.read_text(encoding="utf-8"), module, is_package) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("worldmodels.protocols", "import worldmodels.runs"),
        ("worldmodels.runs", "from worldmodels.executors import make"),
        ("worldmodels.executors", "from worldmodels.envs import make"),
        ("worldmodels.envs.frames", "from worldmodels.experience.store import EpisodeStore"),
        ("worldmodels.experience.store", "import worldmodels.vision.vae"),
        ("worldmodels.vision.train", "from worldmodels import memory"),
        ("worldmodels.vision.train", "from ..memory import train"),
        ("worldmodels.vision", "from .. import memory"),
        ("worldmodels.memory.train", "def late():\n    from worldmodels.dream import engine"),
        ("worldmodels.memory.train", "import worldmodels\nworldmodels.Agent"),
        ("worldmodels.dream.engine", "from worldmodels.controller.linear import squash"),
        ("worldmodels.dream.engine", "from worldmodels import Agent"),
        ("worldmodels.dream.engine", "from worldmodels.dream.env import Dream"),
        ("worldmodels.controller.evolve", "from worldmodels.dream.engine import DreamReturns"),
        ("worldmodels.controller.evolve", "from worldmodels.envs import make"),
        ("worldmodels.agent", "from worldmodels.evaluation import evaluate"),
        ("worldmodels.evaluation", "from worldmodels.pages import report"),
        ("worldmodels.evaluation", "from worldmodels.pipeline import run"),
        ("worldmodels.pages.report", "from worldmodels.cli import main"),
        ("worldmodels.vision.vae", "from worldmodels.runs import derive_seed"),
        ("worldmodels.memory.mdn_rnn", "from worldmodels.memory.sequences import windows"),
        ("worldmodels.memory.transformer", "from worldmodels.memory.mdn_rnn import MDNRNN"),
        ("worldmodels.controller.linear", "from worldmodels.controller.strategies import make"),
        ("worldmodels.pipeline", "from scripts import run_pipeline"),
        ("worldmodels.stages.vision", "from worldmodels.pipeline import Pipeline"),
        ("worldmodels.stages.vision", "from worldmodels.commands.parsing import use_all_cores"),
        ("worldmodels.memory.train", "from worldmodels.stages.vision import held_out"),
        ("worldmodels.vision.train", "from sparse_gan.energy import energy"),
        ("baselines.ppo", "from worldmodels.memory.mdn_rnn import MDNRNN"),
        ("baselines.ppo", "from worldmodels import Agent"),
        ("sparse_gan.coding.ista", "from worldmodels.experience.store import EpisodeStore"),
        ("sparse_gan.data", "from worldmodels.vision.vae import ConvVAE"),
        ("sparse_gan.files", "from worldmodels.experience.store import EpisodeStore"),
        ("worldmodels.pages.document", "from baselines.charts import pictures"),
        ("worldmodels.pages.svg", "from worldmodels.stages import select"),
        ("worldmodels.metrics", "from worldmodels.pages.data import number"),
        ("sparse_gan.coding.methods", "from worldmodels.video import grid"),
        ("sparse_gan.energy", "from sparse_gan.coding.ista import minimise"),
        ("sparse_gan.metrics", "from sparse_gan.coding.drsae import DrSAE"),
        ("sparse_gan.coding.psd", "from sparse_gan.gan.losses import margin"),
        ("sparse_gan.gan.losses", "from sparse_gan.coding.psd import PSD"),
        ("sparse_gan.gan.train", "from worldmodels.video import write_video"),
        ("sparse_gan.gan.pictures", "from worldmodels.vision.vae import ConvVAE"),
        ("scripts.1_collect", "import tests.conftest"),
        ("benchmarks.env", "from scripts.run_pipeline import main"),
    ],
)
def test_wrong_direction_is_found(module: str, source: str) -> None:
    is_package = module == "worldmodels.vision"
    assert len(violations(source, module, is_package)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("worldmodels.pages.report", "from worldmodels.evaluation import EvaluationResult"),
        ("worldmodels.evaluation", "import torch\nfrom worldmodels.agent import Agent"),
        ("worldmodels.vision.vae", "from worldmodels.protocols import UserError"),
        ("worldmodels.vision.train", "from . import vae\nfrom .vae import ConvVAE"),
        ("worldmodels.dream.env", "from worldmodels.agent import Agent"),
        ("worldmodels.controller.evolve", "from worldmodels.protocols import ReturnFunction"),
        ("worldmodels.cli", "from worldmodels import pipeline\nfrom baselines import compare"),
        ("sparse_gan.data", "from worldmodels.experience.store import EpisodeStore"),
        ("sparse_gan.energy", "from worldmodels.runs import RunFolder"),
        ("sparse_gan.coding.report", "from worldmodels.pages.svg import chart"),
        ("baselines.charts", "from worldmodels.pages.svg import chart"),
        ("worldmodels.stages.vision", "from worldmodels.metrics import VisionStep"),
        ("sparse_gan.coding.methods", "from sparse_gan import data, metrics"),
        ("sparse_gan.gan.losses", "from sparse_gan.energy import EnergyModel"),
        ("sparse_gan.gan.comparison", "from worldmodels.vision.vae import ConvVAE"),
        ("sparse_gan.gan.pictures", "from worldmodels.video import write_video"),
        ("baselines.ppo", "import worldmodels\nfrom worldmodels.evaluation import evaluate"),
        ("baselines.dream", "from worldmodels.agent import Agent"),
        ("tests.vision.test_vae", "from worldmodels.vision.vae import ConvVAE"),
    ],
)
def test_right_direction_passes(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_a_new_part_must_be_given_a_place() -> None:
    with pytest.raises(KeyError, match=r"worldmodels\.plotting has no place"):
        violations("from worldmodels.runs import machine", "worldmodels.plotting.bars")
