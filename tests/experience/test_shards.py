from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.experience.fakes import write_shard
from worldmodels.experience.episode import BLOCK_FRAMES, Episode
from worldmodels.experience.shards import Shard
from worldmodels.experience.store import EpisodeStore
from worldmodels.protocols import UserError

A, S = 2, 8
META: dict[str, Any] = {
    "env_id": "fakes/Pixels-v0",
    "frame_spec": {"rows": None, "size": S},
    "frame_shape": [S, S, 3],
    "action_spec": {"kind": "box", "dim": A, "low": [-1, -1], "high": [1, 1]},
    "versions": {"gymnasium": "1", "box2d": "2", "pygame": "3"},
}


def random_episode(seed: int, steps: int) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        obs=rng.integers(0, 4, (steps + 1, S, S, 3), np.uint8),
        action=rng.random((steps, A), np.float32),
        reward=rng.random(steps, np.float32),
        terminated=bool(seed % 2),
        truncated=not seed % 2,
        seed=seed,
        lap_finished=[None, True, False][seed % 3],
    )


def same(a: Episode, b: Episode) -> bool:
    arrays = all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("obs", "action", "reward"))
    plain = ("terminated", "truncated", "seed", "lap_finished")
    return arrays and all(getattr(a, n) == getattr(b, n) for n in plain)


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return write_shard(tmp_path / "a.shard", [random_episode(s, 40 + s) for s in range(3)], META)


@pytest.mark.parametrize("steps", [1, BLOCK_FRAMES - 1, BLOCK_FRAMES, 2 * BLOCK_FRAMES + 5])
def test_round_trip(tmp_path: Path, steps: int) -> None:
    episodes = [random_episode(seed, steps) for seed in range(3)]
    write_shard(tmp_path / "a.shard", episodes, META)
    store = EpisodeStore([tmp_path])
    assert all(same(store.read(i), episode) for i, episode in enumerate(episodes))


@given(data=st.data(), steps=st.integers(1, 70), discrete=st.booleans())
def test_any_values_survive_the_disk(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, steps: int, discrete: bool
) -> None:
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    action: Any = (
        hnp.arrays(np.int64, steps)
        if discrete
        else hnp.arrays(np.float32, (steps, A), elements=finite)
    )
    kind = {"kind": "discrete", "dim": 3, "low": [], "high": []}
    episode = Episode(
        obs=data.draw(hnp.arrays(np.uint8, (steps + 1, 2, 2, 3))),
        action=data.draw(action),
        reward=data.draw(hnp.arrays(np.float32, steps, elements=finite)),
        terminated=data.draw(st.booleans()),
        truncated=data.draw(st.booleans()),
        seed=data.draw(st.integers(0, 10**6)),
        lap_finished=data.draw(st.sampled_from([None, True, False])),
    )
    folder = tmp_path_factory.mktemp("store")
    shape = {"frame_shape": [2, 2, 3], "frame_spec": {"rows": None, "size": 2}}
    meta = {**META, **shape, **({"action_spec": kind} if discrete else {})}
    write_shard(folder / "a.shard", [episode], meta)
    assert same(EpisodeStore([folder]).read(0), episode)


def test_equal_episodes_make_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        write_shard(tmp_path / f"{name}.shard", [random_episode(5, 50)], META)
    assert (tmp_path / "a.shard").read_bytes() == (tmp_path / "b.shard").read_bytes()


def test_a_shard_is_never_changed(shard: Shard) -> None:
    with pytest.raises(UserError, match="never changed"):
        write_shard(shard.path, [random_episode(1, 5)], META)
    with pytest.raises(UserError, match="at least one"):
        write_shard(shard.path.with_name("b.shard"), [], META)


@pytest.mark.parametrize("kept", [0, 4, 47, 300, -1])
def test_a_truncated_shard_is_named_when_opened(shard: Shard, kept: int) -> None:
    raw = shard.path.read_bytes()
    shard.path.write_bytes(raw[:kept])
    with pytest.raises(UserError, match=str(shard.path)):
        Shard(shard.path)


@given(place=st.floats(0, 1, exclude_max=True))
def test_one_flipped_bit_anywhere_is_found(
    tmp_path_factory: pytest.TempPathFactory, place: float
) -> None:
    path = tmp_path_factory.mktemp("flip") / "a.shard"
    write_shard(path, [random_episode(s, 3) for s in range(2)], META)
    raw = bytearray(path.read_bytes())
    raw[int(place * len(raw))] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match=str(path)):
        store = EpisodeStore([path.parent])
        for index in range(2):
            store.read(index)


def test_a_corrupt_block_is_named_and_the_others_are_still_read(shard: Shard) -> None:
    block = shard.entries[1].blocks[1]
    raw = bytearray(shard.path.read_bytes())
    raw[len(raw) - shard.data_bytes + block.offset + 3] ^= 255
    shard.path.write_bytes(raw)
    store = EpisodeStore([shard.path.parent])
    assert same(store.read(0), random_episode(0, 40))
    first = np.empty((BLOCK_FRAMES, S, S, 3), np.uint8)
    store.episodes[1].shard.read_frames(1, 0, first)
    assert np.array_equal(first, random_episode(1, 41).obs[:BLOCK_FRAMES])
    with pytest.raises(UserError, match=r"a\.shard is corrupt in frame block 1 of episode 1"):
        store.read(1)


def test_another_format_version_is_refused(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldmodels.experience.shards.FORMAT_VERSION", 2)
    with pytest.raises(UserError, match="has format 1; this version reads 2"):
        Shard(shard.path)


def test_what_is_no_shard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.shard").write_bytes(b"something else " * 9)
    with pytest.raises(UserError, match="not a shard"):
        Shard(tmp_path / "x.shard")
    with pytest.raises(UserError, match="does not exist"):
        Shard(tmp_path / "y.shard")


def test_a_full_disk_is_named_with_the_bytes_needed_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.shard: the disk is full.*\d+ bytes are needed"):
        write_shard(tmp_path / "a.shard", [random_episode(0, 40)], META)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(source: Any, target: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "a.shard", [random_episode(0, 40)], META)
    assert list(tmp_path.iterdir()) == []


# --- files that promise what they do not hold


def resigned(path: Path, change: Callable[[dict[str, Any]], None], blocks: bytes = b"") -> None:
    """Change a shard's header, and its blocks, with all checksums right."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[8:16], "little")
    header, body = json.loads(raw[48 : 48 + length]), blocks or raw[48 + length :]
    change(header)
    text = json.dumps(header).encode()
    digest = hashlib.sha256(text).digest()
    path.write_bytes(raw[:8] + len(text).to_bytes(8, "little") + digest + text + body)


def claim(header: dict[str, Any]) -> None:
    """1.6 GB of frames in the blocks of a few."""
    header["meta"] |= {"frame_shape": [4096, 4096, 3], "frame_spec": {"rows": None, "size": 4096}}


def move(header: dict[str, Any]) -> None:
    header["episodes"][1]["offset"] = 0


def lengthen(header: dict[str, Any]) -> None:
    header["episodes"][0]["length"] = 10**9


def disagree(header: dict[str, Any]) -> None:
    header["meta"]["frame_shape"] = [S, S + 1, 3]


def bloat(header: dict[str, Any]) -> None:
    header["data_bytes"] += 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (claim, r"a header of a block of [\d,]+ bytes for 1,610,612,736 in episode 0"),
        (move, "a header of blocks that do not lie end to end, in episode 1"),
        (lengthen, "a header of an episode of 1,000,000,000 steps with other frames"),
        (disagree, r"a header of frame_shape \[8, 9, 3\] with frame_spec.size 8"),
        (bloat, r"a header of blocks of [\d,]+ bytes and data of"),
        (lambda header: header.pop("meta"), "lacks meta"),
        (lambda header: header["episodes"].clear(), "a header of no episodes"),
        (lambda header: header["episodes"][0].update(seed="x"), r"episodes\[0\].seed is 'x'"),
        (lambda header: header.update(format=[]), r"has format \[\]"),
    ],
)
def test_a_header_that_promises_too_much_is_refused(
    shard: Shard, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    resigned(shard.path, change)
    with pytest.raises(UserError, match=message) as caught:
        Shard(shard.path)
    assert str(shard.path) in str(caught.value)


def test_a_shard_of_an_earlier_version_is_read(shard: Shard) -> None:
    def age(header: dict[str, Any]) -> None:
        for episode in header["episodes"]:
            del episode["env_steps"], episode["lost"]

    resigned(shard.path, age)
    store = EpisodeStore([shard.path.parent])
    assert all(same(store.read(seed), random_episode(seed, 40 + seed)) for seed in range(3))
    assert store.episodes[0].entry.env_steps == 40 and store.action_repeat == 1


@pytest.mark.parametrize("told", [True, False])
def test_a_block_that_grows_beyond_its_promise_is_not_decompressed(
    shard: Shard, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=told).compress(bytes(10**8))
    raw = shard.path.read_bytes()
    body = raw[len(raw) - shard.data_bytes :]
    size = shard.entries[0].blocks[0].size

    def swap(header: dict[str, Any]) -> None:
        first = header["episodes"][0]
        first["sizes"][0], first["crc32"][0] = len(bomb), zlib.crc32(bomb)
        for episode in header["episodes"]:
            episode["offset"] += len(bomb) - size if episode["offset"] else 0
        header["data_bytes"] += len(bomb) - size

    resigned(shard.path, swap, bomb + body[size:])
    store = EpisodeStore([shard.path.parent])
    monkeypatch.setattr(zstandard, "ZstdDecompressor", lambda: pytest.fail("decompressed"))
    with pytest.raises(UserError, match="does not hold the 6,144 bytes that its header promises"):
        store.read_frames(0)


@pytest.mark.parametrize("content", ["[]", '{"shards": []}', '{"shards": {"a.shard": 1}}'])
def test_a_damaged_manifest_is_named(shard: Shard, content: str) -> None:
    (shard.path.parent / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        EpisodeStore([shard.path.parent])
