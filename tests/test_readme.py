"""The texts that a newcomer reads: their links lead somewhere, their commands can be run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
]
EXAMPLE = """
Install:

```bash
make demo
```

```bash
echo one > file
make test
cat file
```

```text
rm -rf not-run
```

```python
print(open("file").read())
```
"""


@pytest.fixture(scope="module")
def check_readme() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_readme", ROOT / "scripts/check_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    for link in links:
        generated = link.startswith("api/")  # the reference is made by `make docs`
        if not link.startswith("http") and not generated:
            assert (path.parent / link).exists(), link


def test_blocks_are_found_in_order_without_make(check_readme: ModuleType) -> None:
    first, second = check_readme.steps(EXAMPLE)
    assert first[-1] == "echo one > file\ncat file"
    assert second == [sys.executable, "-c", 'print(open("file").read())\n']


def test_a_failing_command_fails_the_check(tmp_path: Path) -> None:
    for text, status in [(EXAMPLE, 0), (EXAMPLE + "```bash\nfalse | true\n```\n", 1)]:
        (tmp_path / "text.md").write_text(text)
        command = [sys.executable, str(ROOT / "scripts/check_readme.py"), str(tmp_path / "text.md")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert "one" in done.stdout


def test_every_make_target_that_is_mentioned_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in TEXTS:
        mentioned = re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(), re.MULTILINE)
        assert set(mentioned) <= targets, path.name


def test_readme_names_the_pythons_of_the_metadata() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = [c.rpartition(" ")[2] for c in project["classifiers"] if " :: 3." in c]
    text = (ROOT / "README.md").read_text()
    assert f"Python {versions[0]} to {versions[-1]}" in text
    assert f"Python {versions[0]} or newer" in text
    assert project["requires-python"] == f">={versions[0]}"


def test_readme_installs_from_the_clone() -> None:
    assert re.findall(r"pip install (\S+?)[`\s]", (ROOT / "README.md").read_text()) == ["."]


def test_the_moving_picture_is_small() -> None:
    (film,) = re.findall(r"docs/images/[\w-]+\.(?:webp|gif)", (ROOT / "README.md").read_text())
    assert (ROOT / film).stat().st_size < 3_000_000
