"""Run folders: whole files or none, an honest ledger, seeds and hashes that mean something."""

from __future__ import annotations

import dataclasses
import enum
import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldmodels import runs
from worldmodels.protocols import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str = "x"
    inner: Inner = Inner()
    folder: Path = Path("a/b")


@dataclasses.dataclass(frozen=True)
class Twin:
    rate: float = 0.5


class Colour(enum.Enum):
    RED = "red"


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- atomic writes


def test_atomic_write_makes_folders_and_leaves_only_the_file(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    runs.atomic_write(target, "first")
    runs.atomic_write(target, b"second")
    assert target.read_bytes() == b"second"
    assert leftovers(target.parent) == ["file.txt"]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    runs.atomic_write(target, "old")
    with pytest.raises(ZeroDivisionError), runs.atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == ["file.bin"]


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match=r"cannot write .*model\.pt: the disk is full"):
        runs.save_checkpoint(tmp_path / "model.pt", {"step": 1})
    assert leftovers(tmp_path) == []


def test_a_file_where_a_folder_is_needed_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="taken"):
        runs.RunFolder(tmp_path / "taken")
    with pytest.raises(UserError, match="taken"):
        runs.atomic_write(tmp_path / "taken" / "file", "text")


def test_temporary_path_keeps_the_suffix(tmp_path: Path) -> None:
    with runs.atomic_path(tmp_path / "film.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"film")


# --- JSON, hashes, seeds


def test_json_round_trip_and_its_errors(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    runs.write_json(file, Outer())
    assert runs.read_json(file) == {"name": "x", "inner": {"rate": 0.5}, "folder": "a/b"}
    with pytest.raises(UserError, match=r"b\.json does not exist"):
        runs.read_json(tmp_path / "b.json")
    file.write_text('{"name": ')
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        runs.read_json(file)


def test_to_jsonable_reduces_what_configs_hold() -> None:
    obj = {
        1: np.float32(0.5),
        "array": np.arange(3),
        "flag": np.bool_(True),
        "set": {"b", "a"},
        "tuple": (1, None),
        "enum": Colour.RED,
        "limits": [float("nan"), float("inf"), -float("inf")],
    }
    assert runs.to_jsonable(obj) == {
        "1": 0.5,
        "array": [0, 1, 2],
        "flag": True,
        "set": ["a", "b"],
        "tuple": [1, None],
        "enum": "red",
        "limits": ["NaN", "Infinity", "-Infinity"],
    }
    with pytest.raises(TypeError, match="object"):
        runs.to_jsonable(object())


def test_config_hash_is_stable_and_tells_things_apart() -> None:
    assert runs.config_hash({"a": 1, "b": 2}) == runs.config_hash({"b": 2, "a": 1})
    # Frozen on purpose: a change of the hash makes every finished stage of every user stale.
    assert runs.config_hash({"a": 1}) == (
        "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    )
    different = [Outer(), Outer(name="y"), Outer(inner=Inner(0.25)), Inner(), Twin(), {"rate": 0.5}]
    assert len({runs.config_hash(obj) for obj in different}) == len(different)


@given(st.lists(st.integers() | st.text(), min_size=1, max_size=4))
def test_derived_seeds_are_reproducible_and_fit_every_generator(parts: list[int | str]) -> None:
    seed = runs.derive_seed(*parts)
    assert seed == runs.derive_seed(*parts)
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)
    np.random.default_rng(seed)


def test_derived_seeds_differ_and_do_not_change_between_versions() -> None:
    parts: list[tuple[int | str, ...]] = [(0,), (1,), ("1",), (1, "a"), ("a", 1), ("a1",), (0, 1)]
    assert len({runs.derive_seed(*part) for part in parts}) == len(parts)
    assert runs.derive_seed(1, "a") == 522679457765827413
    with pytest.raises(ValueError, match="at least one"):
        runs.derive_seed()


# --- versions and machine


def test_versions_name_everything_a_result_depends_on() -> None:
    found = runs.versions()
    expected = "worldmodels python torch gymnasium box2d pygame numpy numba cma stable-baselines3"
    assert set(found) == {*expected.split(), "platform"}
    assert "absent" not in found.values()


def test_machine_has_plausible_figures() -> None:
    found = runs.machine()
    assert found["cpu"]
    assert 1 <= found["cores"] <= 4096
    assert 0.1 < found["memory_gib"] < 1e5
    assert found["threads"] >= 1


# --- the run folder


def test_config_is_written_with_its_circumstances(tmp_path: Path) -> None:
    run = runs.RunFolder(tmp_path / "run")
    run.write_config(Outer())
    record = run.read_config()
    assert record["config"]["inner"] == {"rate": 0.5}
    assert record["versions"] == runs.versions()
    assert record["machine"] == runs.machine()
    runs.write_json(run.config_file, {**record, "schema": 99})
    with pytest.raises(UserError, match="schema 99"):
        run.read_config()


def test_opening_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run folder"):
        runs.RunFolder(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


def test_metrics_survive_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    run = runs.RunFolder(tmp_path)
    run.log("vision", loss=1.5)
    run.log("memory", loss=np.float32(0.5), best=float("inf"))
    with run.metrics_file.open("a") as file:
        file.write('{"time": 1, "sta')
    reader = runs.RunFolder(tmp_path)
    assert [record["stage"] for record in reader.metrics()] == ["vision", "memory"]
    reader.log("vision", loss=1.0)
    assert [record["loss"] for record in reader.metrics("vision")] == [1.5, 1.0]
    assert reader.metrics("memory")[0]["best"] == "Infinity"
    assert len(run.metrics_file.read_text().splitlines()) == 3


def test_a_torn_first_line_is_cut_off(tmp_path: Path) -> None:
    run = runs.RunFolder(tmp_path)
    run.metrics_file.write_text('{"ti')
    run.log("vision", loss=1.0)
    assert len(run.metrics()) == 1


def test_a_corrupt_line_of_metrics_is_named(tmp_path: Path) -> None:
    run = runs.RunFolder(tmp_path)
    run.metrics_file.write_text('{"stage": "a"}\nnonsense\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        run.metrics()


def test_a_stage_that_starts_again_forgets_its_metrics(tmp_path: Path) -> None:
    run = runs.RunFolder(tmp_path)
    run.forget("vision")  # nothing logged yet
    for stage, iteration in [("vision", 0), ("memory", 0), ("vision", 1)]:
        run.log(stage, iteration=iteration, loss=1.0)
    run.log("vision", loss=2.0)
    run.forget("vision", 0)
    left = [(record["stage"], record.get("iteration")) for record in run.metrics()]
    assert left == [("memory", 0), ("vision", 1), ("vision", None)]
    run.forget("vision")
    assert [record["stage"] for record in run.metrics()] == ["memory"]
    run.log("stage", iteration=0, name="encode")
    run.log("stage", iteration=0, name="memory")
    run.forget("stage", 0, "encode")
    assert [record["name"] for record in run.metrics("stage")] == ["memory"]
    run.log("vision", loss=3.0)
    assert len(run.metrics()) == 3


def test_ledger_counts_each_key_once(tmp_path: Path) -> None:
    run = runs.RunFolder(tmp_path)
    assert run.ledger.read()["totals"] == {
        kind: 0 for kind in runs.FRAME_KINDS if kind != "controls"
    }
    for _ in range(2):  # the second round is a resumed stage
        run.ledger.add("collection", 1000, "collect/0")
        run.ledger.add("collection", 500, "collect/1")
        run.ledger.add("test", 20, "evaluate")
    ledger = json.loads(run.ledger.path.read_text())
    assert ledger["totals"]["collection"] == 1500
    assert ledger["totals"]["test"] == 20
    assert ledger["entries"][1] == {"key": "collect/1", "kind": "collection", "frames": 500}
    assert runs.RunFolder(tmp_path).ledger.read() == ledger


@pytest.mark.parametrize(
    ("kind", "frames", "key"), [("real", 1, "b"), ("test", -1, "b"), ("test", 2, "a")]
)
def test_ledger_refuses_what_would_make_it_wrong(
    tmp_path: Path, kind: str, frames: int, key: str
) -> None:
    run = runs.RunFolder(tmp_path)
    run.ledger.add("test", 1, "a")
    with pytest.raises(ValueError, match=r"kind is|frames is|another key"):
        run.ledger.add(kind, frames, key)
    assert len(run.ledger.read()["entries"]) == 1


def test_a_stage_is_done_only_for_its_inputs(tmp_path: Path) -> None:
    run = runs.RunFolder(tmp_path)
    assert not run.stage_done("collect/0", "abc")
    with pytest.raises(UserError, match="does not exist"):
        run.stage_outputs("collect/0")
    run.mark_done("collect/0", "abc", {"frames": 3})
    assert run.stage_done("collect/0", "abc")
    assert not run.stage_done("collect/0", "other")
    assert run.stage_outputs("collect/0") == {"frames": 3}


def test_a_stage_is_done_only_while_its_files_are_as_it_left_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file, folder = runs.RunFolder(tmp_path), tmp_path / "v.bin", tmp_path / "data"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"a" * 100)
    file.write_bytes(b"v" * 100)
    run.mark_done("vision", "abc", {}, [file, folder, tmp_path / "not made"], "read")
    result = run.stage_found("vision")
    assert run.stage_done("vision", "abc", "read")
    assert not run.stage_done("vision", "abc", "other")  # what it reads has changed
    file.write_bytes(b"w" + b"v" * 99)
    (folder / "a.bin").unlink()
    assert not run.stage_done("vision", "abc", "read")
    told = capsys.readouterr().out
    assert f"{file} is not as it was written: vision is done again" in told
    assert f"{folder / 'a.bin'} is missing: vision is done again" in told
    assert not file.exists()  # so that nothing reads it
    (folder / "a.bin").write_bytes(b"a" * 100)
    file.write_bytes(b"v" * 100)
    run.mark_done("vision", "abc", {}, [file, folder], "read")
    assert run.stage_found("vision") == result
    record = tmp_path / "stages" / "vision.json"
    record.write_text(record.read_text().replace("v.bin", "w.bin"))
    assert not run.stage_done("vision", "abc", "read")
    assert "vision.json is damaged: vision is done again" in capsys.readouterr().out


def test_files_of_a_record_without_digests_are_taken_once(tmp_path: Path) -> None:
    run, file = runs.RunFolder(tmp_path), tmp_path / "v.bin"
    file.write_bytes(b"as it is")
    old = {"stage": "vision", "inputs": "abc", "time": 0.0, "outputs": {}}
    runs.write_json(tmp_path / "stages" / "vision.json", old)
    assert run.stage_done("vision", "abc", "read", [file])
    file.write_bytes(b"changed!")
    assert not run.stage_done("vision", "abc", "read", [file])


def test_a_lost_ledger_is_made_again_from_the_stages(tmp_path: Path) -> None:
    run = runs.RunFolder(tmp_path)
    key = "test/01234567"
    run.ledger.add("test", 20, key)
    run.mark_done("test/02", "0123456789", {})
    before = run.ledger.read()
    _, frames = run.stage_found("test/02")
    run.ledger.path.write_text("{")
    run.ledger.drop_if_damaged()
    run.ledger.settle({"01234567"}, frames)
    assert run.ledger.read() == before
    run.ledger.path.write_text(run.ledger.path.read_text().replace("20", "21"))
    run.ledger.settle({"01234567"}, frames)
    assert run.ledger.read() == before


# --- progress


def test_progress_yields_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(runs.progress([3, 1], "short")) == [3, 1]
    assert list(runs.progress(range(2), "short")) == [0, 1]
    assert capsys.readouterr().out == ""  # nothing to say about work that takes no time


def test_progress_without_a_terminal_writes_sparse_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with runs.progress(range(400), "vision", unit="frames") as bar:
        for _ in range(4):
            now[0] += 3.0
            bar.advance(100, loss=0.25)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "vision: 200/400 (50%), 33.33 frames/s, 6s left, loss 0.25",
        "vision: 400/400 (100%), 33.33 frames/s, 12s taken, loss 0.25",
    ]


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_used_only_where_the_machine_multiplies_it_fast(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    cpu, x = torch.device("cpu"), torch.ones(2, 2)
    assert runs.machine()["bfloat16"] is fast
    with runs.mixed_precision(cpu):
        assert (x @ x).dtype == (torch.bfloat16 if fast else torch.float32)
    with runs.mixed_precision(cpu, wanted=False):
        assert (x @ x).dtype == torch.float32


# --- what is no JSON of ours


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 10**5 + b"]" * 10**5, "nested deeper than 64"),
        (b"[" * 10**5, "nested deeper than 64"),
        (b"9" * 5000, "the integer 99999999999999999999... needs more than 64 bits"),
        (b"-9223372036854775809", "needs more than 64 bits"),
        (b"1e400", "1e400 is not a finite number"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": 1, "a": 2}', "an object has the key 'a' twice"),
        (b'"\\ud800"', "surrogates not allowed"),
        (b"\xff", "can't decode"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_no_json_is_refused_in_one_line(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        runs.read_json(path)
    assert str(path) in str(caught.value)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody writes: reading would wait for ever
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match="is not a regular file"):
            runs.read_json(path)
    with pytest.raises(UserError, match="null byte"):
        runs.read_json("a\0b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "frames.json lacks entries"),
        ("[]", "frames.json holds []; it must be a JSON object"),
        ('{"entries": [{"key": "a", "kind": "x", "frames": 1}]}', "entries[0].kind is 'x'"),
        ('{"entries": [{"key": "a", "kind": "test", "frames": -1}]}', "entries[0].frames is -1"),
    ],
)
def test_a_damaged_ledger_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "frames.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(message)):
        runs.RunFolder(tmp_path).ledger.add("test", 1, "key")
    assert (tmp_path / "frames.json").read_text() == content


def test_a_damaged_stage_or_line_is_named(tmp_path: Path) -> None:
    run = runs.RunFolder(tmp_path)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "x.json").write_text('{"inputs": "a"}')
    assert not run.stage_done("x", "a")  # it is done again
    with pytest.raises(UserError, match=r"x\.json lacks outputs"):
        run.stage_outputs("x")
    run.metrics_file.write_text('{"stage": "a"}\n{"loss": 1}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 lacks stage"):
        run.metrics()
