"""Figures are no older than the code and the data that they show; notebooks hold no outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scripts.figures import diagrams, frames, style, table

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))


def test_no_figure_is_older_than_its_code_and_data() -> None:
    assert table.stale() == [], "run `make figures`"


def test_no_digest_is_left_of_a_figure_that_is_gone() -> None:
    assert {*json.loads(table.DIGESTS.read_text(encoding="utf-8"))} == {*table.FIGURES}


ELSEWHERE = {"dream-player.jpg"}
"""A photograph of the page that `worldmodels export-web` writes."""


def test_every_picture_is_made_by_a_figure() -> None:
    """Those in folders named after a day are copies of what an entry's run wrote."""
    found = {
        path.relative_to(table.IMAGES).as_posix()
        for path in table.IMAGES.rglob("*.*")
        if path.suffix != ".json" and not path.parent.name.startswith("20")
    }
    assert found == {*table.FIGURES} | ELSEWHERE


def test_what_a_figure_imports_is_its_code() -> None:
    names = {str(path.relative_to(ROOT)) for path in table.imported(Path(frames.__file__))}
    assert {"worldmodels/video/drawing.py", "worldmodels/video/films.py"} <= names
    assert not any(name.endswith("worldmodels/runs.py") for name in names)


def test_a_chart_is_dark_on_a_dark_page() -> None:
    charts = [path for path in table.IMAGES.glob("*.svg") if not path.name.startswith("badge")]
    assert charts and all(style.DARK in path.read_text(encoding="utf-8") for path in charts)


def test_a_change_of_the_data_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "_HERE", tmp_path)
    code, data = tmp_path / "style.py", tmp_path / "data.json"
    code.touch()
    monkeypatch.setattr(diagrams, "__file__", str(code))
    made = table.Made(diagrams.draw_system, [data])
    digests = set()
    for text in ("1", "2"):
        data.write_text(text)
        digests.add(made.digest())
    code.write_text("# other")
    assert len(digests | {made.digest()}) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_no_outputs_and_one_install_line(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    first = {"".join(cell["source"]).partition("\n")[0] for cell in code}
    assert not [line for line in first if line.startswith(("!", "%%bash"))]  # may fail unnoticed
    installs = [cell for cell in code if "pip install" in "".join(cell["source"])]
    assert installs == code[:1]
    assert installs[0]["metadata"]["tags"] == ["skip-execution"]  # not where docs are built
    (line,) = installs[0]["source"]
    assert re.fullmatch(r"%pip install --quiet '?worldmodels-control(\[minari\])?'?", line)


def test_all_notebooks_are_listed() -> None:
    text = (ROOT / "docs/tutorials/index.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) == 8
    assert all(text.count(path.stem) == 2 for path in NOTEBOOKS)
