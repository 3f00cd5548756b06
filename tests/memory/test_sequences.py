"""Streams of windows: every step once an epoch, state carried only inside an episode."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldmodels.memory.sequences import SequenceStreams
from worldmodels.protocols import UserError
from worldmodels.vision.latents import Latents

Z, A = 3, 2


def make_latents(lengths: list[int]) -> Latents:
    """Episodes whose reward is the index of its frame, so that every step can be recognised."""
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths, np.int64) + 1)]).astype(np.int64)
    frames = int(offsets[-1])
    mu = np.repeat(np.arange(frames, dtype=np.float32)[:, None], Z, axis=1)
    return Latents(
        mu=mu,
        logvar=np.zeros_like(mu),
        action=mu[:, :A] + 0.5,
        reward=np.arange(frames, dtype=np.float32),
        terminated=np.array([index % 2 == 0 for index in range(len(lengths))]),
        offsets=offsets,
        seeds=np.arange(len(lengths)),
    )


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(2, 12), st.integers(1, 5))
def test_an_epoch_plays_every_step_once(lengths: list[int], length: int, width: int) -> None:
    latents = make_latents(lengths)
    streams = SequenceStreams(latents, length, width, seed=1)
    seen: list[float] = []
    ends = 0.0
    for batch in itertools.islice(streams.batches(), streams.steps_per_epoch()):
        valid = batch.mask > 0
        seen.extend(batch.reward[valid].tolist())
        assert np.array_equal(batch.mu[:, :-1, 0][valid], batch.reward[valid])
        assert np.array_equal(batch.mu[:, 1:, 0][valid], batch.reward[valid] + 1)
        assert np.array_equal(batch.action[..., 0][valid], batch.reward[valid] + 0.5)
        ends += float(batch.terminated[valid].sum())
    last = set((latents.offsets[1:] - 1).tolist())
    assert sorted(seen) == [frame for frame in range(latents.num_frames) if frame not in last]
    assert ends == latents.terminated.sum()


def test_windows_follow_one_another_until_a_restart() -> None:
    streams = SequenceStreams(make_latents([20, 7, 15]), 4, 2, seed=0)
    at: list[float | None] = [None, None]
    for batch in itertools.islice(streams.batches(), 30):
        for row in range(2):
            if batch.mask[row, 0] == 0:
                at[row] = None
                continue
            if not batch.restart[row]:
                assert at[row] == batch.reward[row, 0]
            steps = int(batch.mask[row].sum())
            at[row] = float(batch.reward[row, steps - 1]) + 1


def test_batches_can_be_entered_anywhere() -> None:
    streams = SequenceStreams(make_latents([9, 4, 13, 2]), 4, 2, seed=5)
    whole = list(itertools.islice(streams.batches(), 25))
    for start in (0, 3, 11, 24):
        later = next(streams.batches(start))
        pairs = zip(whole[start][:7], later[:7], strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs) and whole[start].first == later.first


def test_episodes_that_start_in_a_batch_share_a_first_length() -> None:
    streams, firsts = SequenceStreams(make_latents([50] * 12), 8, 4, 0, exact=True), set()
    for batch in itertools.islice(streams.batches(), 40):
        steps = batch.mask.sum(1)
        assert (steps[batch.restart & (steps > 0)] == batch.first).all()
        firsts.add(batch.first)
    assert firsts == set(range(1, 9))
    for batch in itertools.islice(SequenceStreams(make_latents([50] * 3), 8, 2, 0).batches(), 9):
        assert batch.first == 8


def test_an_episode_that_fits_into_a_window_is_not_cut() -> None:
    streams = SequenceStreams(make_latents([7, 8, 3]), 8, 1, seed=0, exact=True)
    batches = list(itertools.islice(streams.batches(), 6))
    assert sorted(int(batch.mask.sum()) for batch in batches) == [3, 3, 7, 7, 8, 8]
    assert all(batch.restart.all() for batch in batches)


def test_repeats_play_an_episode_more_often() -> None:
    streams = SequenceStreams(make_latents([5, 5]), 5, 1, seed=0, repeats=np.array([1, 3]))
    seen = np.concatenate(
        [
            b.reward[b.mask > 0]
            for b in itertools.islice(streams.batches(), streams.steps_per_epoch())
        ]
    )
    assert (seen == 0).sum() == 1
    assert (seen == 6).sum() == 3


def test_no_episodes_is_said() -> None:
    with pytest.raises(UserError, match="no episodes"):
        SequenceStreams(make_latents([]), 4, 2, seed=0)
