"""What a command writes is looked at before it works; only regular files are ever replaced."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
import threading
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.console
import rich.progress

from tests.agents import make
from worldmodels import cli, runs
from worldmodels._outputs import FILM, FOLDER, Output
from worldmodels.protocols import UserError
from worldmodels.runs import atomic_path, atomic_write, check_output
from worldmodels.video import VideoConfig, write_video

LONG = "n" * 201
WRITTEN = ("out", "json", "video", "run", "markdown", "picture", "write")
"""Names of options that say what a command writes."""


def refuse(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_every_output_of_every_command_is_marked() -> None:
    reads = {("study", "run"), ("baseline", "run")}  # the run that is studied, or compared with
    for name, entry in cli.COMMANDS.items():
        command: Any = entry.load()
        hints = typing.get_type_hints(command, include_extras=True)
        for field in dataclasses.fields(command):
            if field.name not in WRITTEN or (name, field.name) in reads:
                continue
            if field.name == "config":
                continue
            kinds = (hints[field.name], *typing.get_args(hints[field.name]))
            marks = [m for kind in kinds for m in getattr(kind, "__metadata__", ())]
            assert any(isinstance(mark, Output) for mark in marks), (name, field.name)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["evaluate", "--agent", "random", "--json", ""], "--json is '.': this is a folder"),
        (["evaluate", "--agent", "random", "--json", "d"], "--json is 'd': this is a folder"),
        (["evaluate", "--agent", "random", "--json", "f/x"], "--json is 'f/x': a part of the path"),
        (["evaluate", "--agent", "random", "--json", "loop"], "--json is 'loop': its links lead"),
        (["evaluate", "--agent", "random", "--json", LONG], "the name is too long"),
        (["evaluate", "--agent", "random", "--json", "/proc/x/y"], "no file can be made in /proc"),
        (["evaluate", "--agent", "random", "--run", "f"], "--run is 'f': this is a file"),
        (["evaluate", "--agent", "random", "--run", "/dev/null"], "this is a file; name a folder"),
        (["evaluate", "--agent", "random", "--resume", "--json", "/dev/null"], "name a file"),
        (
            ["play", "--agent", "car-racing", "--video", "noext"],
            "'noext': the name must end in .mp4",
        ),
        (["plan", "--agent", "car-racing", "--video", "x.avi"], "the name must end in .mp4"),
        (["collect", "--out", "f"], "--out is 'f': this is a file; name a folder"),
        (["train-vision", "--data", "d", "--out", "d"], "--out is 'd': this is a folder"),
        (["run", "--out", LONG], "the name is too long"),
        (["compare", "nothing", "--out", "f"], "--out is 'f': this is a file"),
        (["train-policy", "--agent", "car-racing", "--out", "d"], "--out is 'd': this is a folder"),
    ],
)
def test_outputs_are_refused_before_the_work(
    words: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    Path("f").touch()
    Path("loop").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_read_only_or_forbidden_place_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_output(tmp_path / "new" / "folders" / "x.json", "--json")
    assert not list(tmp_path.iterdir())  # looking leaves no trace
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    for kind, path in ((FOLDER, tmp_path), (FOLDER, tmp_path / "new"), (FILM, tmp_path / "a.mp4")):
        with pytest.raises(UserError, match=r"^--out is '.*': the file system is read-only"):
            check_output(path, "--out", kind)
    with pytest.raises(UserError, match=r"the run folder is .*read-only"):
        runs.RunFolder(tmp_path)


def test_a_clean_up_that_fails_does_not_hide_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UserError, match=r"cannot write .*x\.json: the file system is read-only"):
        atomic_write(tmp_path / "x.json", "{}")


def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "real" / "x.json", tmp_path / "link.json"
    link.symlink_to("real/x.json")
    for text in ("first", "second"):  # the link leads nowhere at first
        atomic_write(link, text)
        assert link.is_symlink() and real.read_text() == text
    folder, agent = tmp_path / "elsewhere", tmp_path / "agent"
    agent.symlink_to(folder)
    for _ in range(2):
        assert make().save_pretrained(agent) == agent
        assert agent.is_symlink() and (folder / "config.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("agent", "elsewhere", "link.json", "real")
    ]


def test_long_names_have_room_for_their_temporary_one(tmp_path: Path) -> None:
    for name in ("n" * 255, "ü" * 120 + ".json", "x." + "y" * 250):
        atomic_write(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"
    with pytest.raises(UserError, match="the name is too long"):
        atomic_write(tmp_path / ("n" * 256), "x")


def test_devices_and_pipes_are_written_into(tmp_path: Path) -> None:
    number = os.stat("/dev/full").st_ino
    with pytest.raises(UserError, match="cannot write /dev/full: the disk is full"):
        atomic_write("/dev/full", "x")
    atomic_write("/dev/null", "x")
    assert os.stat("/dev/full").st_ino == number
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    with atomic_path(pipe) as temporary:
        temporary.write_text("whole")
        assert temporary.parent != tmp_path
    reader.join(10)
    assert heard == ["whole"] and pipe.is_fifo()


@pytest.mark.parametrize("piped", [True, False])
def test_standard_output_is_a_file_like_any_other(tmp_path: Path, piped: bool) -> None:
    code = "from worldmodels.runs import write_json; print(1); write_json('/dev/stdout', [2])"
    target = tmp_path / "out.txt"
    with target.open("w") as file:
        out = subprocess.PIPE if piped else file
        done = subprocess.run([sys.executable, "-c", code], stdout=out, text=True, check=True)
    assert (done.stdout if piped else target.read_text()) == "1\n[\n  2\n]\n"


def test_films_need_their_suffix_and_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = [np.zeros((16, 16, 3), np.uint8)] * 2
    for name in ("a:b.mp4", "-x %03d.mp4", "[b] $x$ ü.MP4"):
        assert write_video(Path(name), frames, VideoConfig()).stat().st_size > 100
    with pytest.raises(UserError, match=r"the film is 'noext': the name must end in \.mp4"):
        write_video(Path("noext"), frames, VideoConfig())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_markup_in_names_is_printed_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a [/b] [red]{x} $y$"
    make().save_pretrained(folder / "agent")
    words = ["--episodes", "1", "--max-steps", "2", "--workers", "1"]
    words += ["--json", str(folder / "[/].json")]
    assert cli.main(["evaluate", "--agent", str(folder), *words]) == 0
    assert "[/b]" in capsys.readouterr().out
    assert json.loads((folder / "[/].json").read_text())["agent"] == str(folder)


def test_progress_prints_markup_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with runs.progress(range(2), "reading [/b]", unit="[/b]") as bar:
        bar.advance(1, last="[/b]")
        assert isinstance(bar._bar, rich.progress.Progress)
        console = rich.console.Console(width=200)
        with console.capture() as shown:
            console.print(bar._bar.get_renderable())
    assert shown.get().count("[/b]") == 4  # description, unit, rate and figure
    capsys.readouterr()


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--agent", "x" * 300],
        ["train-vision", "--data", "x" * 300, "--out", "v.pt"],
        ["report", "--run", "x" * 300],
        ["compare", "f/x"],
    ],
)
def test_paths_that_the_system_refuses_are_one_line(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").touch()
    assert cli.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_denied_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise PermissionError(errno.EACCES, "", "/secret/config.json")

    assert cli.guarded(work) == 2
    assert capsys.readouterr().err == (
        "error: /secret/config.json: Permission denied; give another path\n"
    )
