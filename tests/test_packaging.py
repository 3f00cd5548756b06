"""What a user installs: one version, honest requirements, the shipped weights in the wheel."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import worldmodels
from worldmodels.protocols import DISTRIBUTION, install_extra

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pins() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in found}


def test_one_version_in_package_changelog_and_metadata() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", worldmodels.__version__)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {worldmodels.__version__}" in changelog
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {worldmodels.__version__}\n" in cited
    assert importlib.metadata.version(DISTRIBUTION) == worldmodels.__version__


def test_every_extra_is_installed_by_the_name_on_the_index(project: dict[str, Any]) -> None:
    """`pip install worldmodels` is somebody else's package."""
    assert project["project"]["name"] == DISTRIBUTION
    extras = project["project"]["optional-dependencies"]
    found = set()
    for path in [p for ending in ("py", "md", "ipynb") for p in ROOT.rglob(f"*.{ending}")]:
        if not {".venv", "runs", "build", "_build"} & {*path.relative_to(ROOT).parts}:
            text = path.read_text(encoding="utf-8")
            said = re.findall(r"pip install\s+[\\'\"]*(worldmodels[\w-]*)\\?\[(\w+)", text)
            assert {name for name, _ in said} <= {DISTRIBUTION}, path
            found |= {extra for _, extra in said}
    assert {"doom", "atari", "sparse", "minari"} <= found <= {*extras}
    assert install_extra("doom") == "pip install 'worldmodels-control[doom]'"


def test_metadata_keeps_a_range_and_the_set_up_pins_inside_it(
    project: dict[str, Any], pins: dict[str, Requirement]
) -> None:
    extras = project["project"]["optional-dependencies"].values()
    required = [*project["project"]["dependencies"], *(line for extra in extras for line in extra)]
    for requirement in map(Requirement, required):
        pin = pins[canonicalize_name(requirement.name)]
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert requirement.specifier.contains(exact.version), f"{pin} is outside {requirement}"
        assert all(clause.operator != "==" for clause in requirement.specifier), requirement


def test_set_up_pins_torch_by_its_plain_version(pins: dict[str, Requirement]) -> None:
    (exact,) = pins["torch"].specifier
    assert "+" not in exact.version
    assert pins["torch"].specifier.contains(importlib.metadata.version("torch"))
    assert pins["torch"].specifier.contains(f"{exact.version}+cpu")  # one that is there stays


@pytest.mark.skipif(shutil.which("make") is None, reason="Windows has no make")
def test_make_installs_by_the_pins_and_leaves_the_index_to_pip() -> None:
    command = ["make", "--dry-run", "--always-make", ".venv/.core-installed"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (install,) = [line for line in said.splitlines() if " pip install " in line]
    assert "--constraint constraints.txt" in install
    assert "index-url" not in install


def test_import_is_cheap_and_repeatable() -> None:
    code = (
        "import sys, importlib, gymnasium, worldmodels\n"
        "importlib.reload(worldmodels)\n"
        "assert not {'torch', 'numba', 'matplotlib'} & set(sys.modules)\n"
        "ids = [i for i in gymnasium.registry if i.startswith('worldmodels/')]\n"
        "ids = sorted(i.removeprefix('worldmodels/') for i in ids)\n"
        "assert ids == ['CarRacing-v3', 'CarRacingDream-v0', 'Dream-v0'], ids\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_public_names_are_exported_lazily() -> None:
    from worldmodels.agent import Agent
    from worldmodels.policies.opening import open_policy

    assert worldmodels.Agent is Agent
    assert worldmodels.open_policy is open_policy
    assert [name for name in dir(worldmodels) if name[0] != "_"] == sorted(worldmodels.__all__)
    for name in worldmodels.__all__:
        assert getattr(worldmodels, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Driver'"):
        worldmodels.Driver  # noqa: B018  the attribute access is what is tested


def test_wheel_ships_all_code_types_and_weights(project: dict[str, Any]) -> None:
    """What hatchling would put into the wheel, asked of hatchling itself."""
    builder = WheelBuilder(str(ROOT))
    shipped = {included.distribution_path for included in builder.recurse_included_files()}
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == ["worldmodels", "baselines", "sparse_gan"]
    for package in packages:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert str(path.relative_to(ROOT)) in shipped
    assert "worldmodels/py.typed" in shipped
