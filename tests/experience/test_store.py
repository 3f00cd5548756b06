from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.experience.fakes import write_shard
from worldmodels.experience.episode import Episode
from worldmodels.experience.store import EpisodeStore
from worldmodels.protocols import UserError

A, S = 2, 4
LENGTHS = [1, 31, 32, 70, 5, 200, 3]
META: dict[str, Any] = {
    "env_id": "fakes/Pixels-v0",
    "frame_spec": {"rows": None, "size": S},
    "frame_shape": [S, S, 3],
    "action_spec": {"kind": "box", "dim": A, "low": [-1, -1], "high": [1, 1]},
    "versions": {"gymnasium": "1", "box2d": "2", "pygame": "3"},
}


def numbered(seed: int, steps: int, discrete: bool = False) -> Episode:
    """An episode whose frames, actions and rewards say their seed and step."""
    obs = np.zeros((steps + 1, S, S, 3), np.uint8)
    obs[..., 0] = np.arange(steps + 1)[:, None, None]
    obs[..., 1] = seed
    t = np.arange(steps)
    return Episode(
        obs=obs,
        action=t.copy() if discrete else np.stack([t, t + 0.5], 1).astype(np.float32),
        reward=(seed * 1000 + t).astype(np.float32),
        terminated=seed % 2 == 0,
        truncated=seed % 2 == 1,
        seed=seed,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    episodes = [numbered(seed, steps) for seed, steps in enumerate(LENGTHS)]
    write_shard(folder / "a.shard", episodes[:3], META)
    write_shard(folder / "b.shard", episodes[3:], META)
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> EpisodeStore:
    return EpisodeStore([folder])


def labels(frames: Any) -> list[tuple[int, int]]:
    return [(int(f[0, 0, 1]), int(f[0, 0, 0])) for f in frames]


ALL = [(seed, t) for seed, steps in enumerate(LENGTHS) for t in range(steps + 1)]


def test_index_and_order(store: EpisodeStore) -> None:
    assert [r.entry.seed for r in store.episodes] == list(range(len(LENGTHS)))
    assert store.num_steps == sum(LENGTHS)
    assert store.num_frames == len(ALL)
    firsts = [r.first_frame for r in store.episodes]
    assert firsts == np.cumsum([0] + [n + 1 for n in LENGTHS[:-1]]).tolist()
    assert labels(np.concatenate([store.read(i).obs for i in range(len(store))])) == ALL


def test_some_frames_are_those_of_the_whole_episode(store: EpisodeStore) -> None:
    for record in store.episodes:
        whole, last = store.read_frames(record.index), record.num_frames - 1
        at = np.array([last, 0, last // 2, 0])
        assert np.array_equal(store.frames_at(record.index, at), whole[at])
        assert store.frames_at(record.index, at[:0]).shape == (0, *whole.shape[1:])


@pytest.mark.parametrize("buffer_frames", [1, 64, 10_000])
def test_an_epoch_has_each_frame_once(store: EpisodeStore, buffer_frames: int) -> None:
    batches = store.frame_batches(1, 3, buffer_frames=buffer_frames)
    seen = labels(np.concatenate(list(islice(batches, len(ALL)))))
    assert Counter(seen) == Counter(ALL)
    assert seen != ALL


def test_an_epoch_leaves_out_less_than_a_batch(store: EpisodeStore) -> None:
    batches = list(islice(store.frame_batches(16, 3), 2 * (len(ALL) // 16)))
    assert {len(b) for b in batches} == {16}
    for epoch in np.split(np.concatenate(batches), 2):
        assert len(set(labels(epoch))) == len(epoch) > len(ALL) - 16


@given(start=st.integers(0, 60), batch=st.integers(1, 40), buffer=st.integers(1, 400))
def test_any_batch_is_had_without_those_before_it(
    store: EpisodeStore, start: int, batch: int, buffer: int
) -> None:
    def take(begin: int, stop: int) -> list[list[tuple[int, int]]]:
        batches = store.frame_batches(batch, 9, start=begin, buffer_frames=buffer)
        return [labels(b) for b in islice(batches, stop - begin)]

    assert take(start, start + 3) == take(0, start + 3)[start:]


def test_epochs_and_seeds_differ(store: EpisodeStore) -> None:
    count = len(ALL) // 16
    two = [labels(b) for b in islice(store.frame_batches(16, 1), 2 * count)]
    other = labels(next(store.frame_batches(16, 2)))
    assert two[0] != two[count]
    assert two[0] != other


def test_frames_are_mixed_across_episodes(store: EpisodeStore) -> None:
    first = labels(next(store.frame_batches(64, 0)))
    assert len({seed for seed, _ in first}) >= 4
    steps = np.array([t for seed, t in first if seed == 5])
    assert np.abs(np.diff(steps)).mean() > 10


def test_batches_belong_to_the_caller(store: EpisodeStore) -> None:
    batches = store.frame_batches(16, 3)
    first = next(batches)
    before = first.copy()
    next(batches)
    assert np.array_equal(first, before)


def test_too_few_frames_and_wrong_numbers(store: EpisodeStore) -> None:
    with pytest.raises(UserError, match=f"{len(ALL)} frames, fewer than one batch of 1000"):
        next(store.frame_batches(1000, 0))
    with pytest.raises(UserError, match="batch is 0"):
        next(store.frame_batches(0, 0))


def test_discrete_actions(tmp_path: Path) -> None:
    spec = {"kind": "discrete", "dim": 300, "low": [], "high": []}
    write_shard(tmp_path / "a.shard", [numbered(1, 20, True)], {**META, "action_spec": spec})
    store = EpisodeStore([tmp_path])
    assert store.read(0).action.tolist() == list(range(20))
    assert store.action_spec.dim == 300


def test_subset_and_fingerprint(folder: Path, store: EpisodeStore) -> None:
    part = store.subset([5, 0])
    assert [r.entry.seed for r in part.episodes] == [5, 0]
    assert part.num_frames == 203
    assert labels(part.read(1).obs) == [(0, 0), (0, 1)]
    assert part.fingerprint != store.fingerprint == EpisodeStore([folder]).fingerprint
    with pytest.raises(UserError, match="at least one"):
        store.subset([])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"env_id": "other/Env-v0"}, "has env_id other/Env-v0 and .*a.shard has fakes/Pixels-v0"),
        ({"frame_spec": {"rows": 84, "size": S}}, "frame_spec"),
        ({"versions": {**META["versions"], "box2d": "9"}}, "made with box2d 9 and .* with 2"),
    ],
)
def test_sets_that_do_not_belong_together_are_refused(
    folder: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    write_shard(tmp_path / "z.shard", [numbered(9, 4)], {**META, **changed})
    with pytest.raises(UserError, match=said):
        EpisodeStore([folder, tmp_path])


def test_versions_of_other_packages_do_not_matter(folder: Path, tmp_path: Path) -> None:
    other = {**META, "versions": {**META["versions"], "numpy": "0"}}
    write_shard(tmp_path / "z.shard", [numbered(9, 4)], other)
    assert len(EpisodeStore([folder, tmp_path])) == 8


def test_folders_that_hold_nothing(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="holds no shards"):
        EpisodeStore([tmp_path])
    with pytest.raises(UserError, match="there is no folder"):
        EpisodeStore([tmp_path / "none"])
    with pytest.raises(UserError, match="named twice"):
        EpisodeStore([folder, str(folder)])
    with pytest.raises(UserError, match="no folders"):
        EpisodeStore([])


@pytest.mark.parametrize("inside", ["experience/00-ab", "experience/00-ab/1", "1"])
def test_a_run_a_collection_and_shards_are_opened_alike(tmp_path: Path, inside: str) -> None:
    made = tmp_path / inside
    shard = write_shard(made / "a.shard", [numbered(1, 4)], META)
    shards = {"a.shard": {"header_sha256": shard.header_sha256}}
    (made / "manifest.json").write_text(json.dumps({"shards": shards}))
    made.with_name("99-just-begun").mkdir()
    for folders in (tmp_path, str(tmp_path), [tmp_path], made):
        assert [episode.seed for episode in EpisodeStore(folders)] == [1]
    found = EpisodeStore(tmp_path)
    assert found[-1].reward.tolist() == found.read(0).reward.tolist()
    with pytest.raises(IndexError):
        found[1]


@pytest.mark.parametrize(("first", "stop"), [(0, 1), (31, 33), (32, 64), (70, 201), (5, None)])
def test_frames_of_a_part_of_an_episode(store: EpisodeStore, first: int, stop: int | None) -> None:
    whole = store.read_frames(5)
    np.testing.assert_array_equal(store.read_frames(5, first, stop), whole[first:stop])


def test_a_dataset_of_torch_has_episodes_or_windows(store: EpisodeStore) -> None:
    episodes = store.as_dataset()
    assert [len(item["reward"]) for item in (episodes[n] for n in range(len(episodes)))] == LENGTHS
    assert episodes[2]["terminated"].tolist() == [False] * 31 + [True]  # of even seeds
    windows = store.as_dataset(length=32)
    assert len(windows) == sum(length // 32 for length in LENGTHS)
    (batch,) = DataLoader(windows, batch_size=len(windows))
    assert batch["obs"].shape == (len(windows), 33, S, S, 3)
    assert batch["obs"][:, :, 0, 0, 0].diff(dim=1).eq(1).all()  # frames are numbered
    assert batch["action"][2, :, 0].tolist() == list(range(32, 64))
    assert batch["reward"][0].tolist() == [2000 + t for t in range(32)]
    assert batch["terminated"].sum() == 1  # the last step of episode 2; others end in no window
    with pytest.raises(UserError, match="the longest episode has 200 steps"):
        store.as_dataset(length=201)


def test_the_manifest_tells_a_missing_and_a_foreign_shard(tmp_path: Path) -> None:
    a = write_shard(tmp_path / "a.shard", [numbered(1, 4)], META)
    b = write_shard(tmp_path / "b.shard", [numbered(2, 4)], META)
    listed = {s.path.name: {"header_sha256": s.header_sha256} for s in (a, b)}
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"shards": listed}))
    assert len(EpisodeStore([tmp_path])) == 2
    b.path.unlink()
    with pytest.raises(UserError, match=r"b\.shard is missing"):
        EpisodeStore([tmp_path])
    write_shard(b.path, [numbered(3, 4)], META)
    with pytest.raises(UserError, match=r"b\.shard is not the one"):
        EpisodeStore([tmp_path])
    manifest.write_text(json.dumps({"shards": {"a.shard": listed["a.shard"]}}))
    with pytest.raises(UserError, match="not finished"):
        EpisodeStore([tmp_path])
