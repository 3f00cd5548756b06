"""Starts: what is chosen, and what M's state is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from worldmodels.dream.starts import DreamStarts, before_off_track, build_starts, with_beginnings
from worldmodels.protocols import UserError

from .conftest import A, Z, make_memories, make_starts

LENGTHS = (9, 4, 1)  # frames of each episode; the last one has no step
OFFSETS = np.concatenate(([0], np.cumsum(LENGTHS)))
F = int(OFFSETS[-1])


def make_latents(logvar: float = -60.0) -> Any:
    rng = np.random.default_rng(0)
    return SimpleNamespace(
        mu=rng.standard_normal((F, Z)).astype(np.float32),
        logvar=np.full((F, Z), logvar, np.float32),
        action=rng.random((F, A), dtype=np.float32),
        offsets=OFFSETS,
    )


def test_no_dream_starts_at_an_episodes_last_frame() -> None:
    latents = make_latents()
    starts = build_starts(make_memories(), latents, 400, 0, np.random.default_rng(1))
    found = np.abs(latents.mu[:, None] - starts.z).max(-1).argmin(0)
    assert sorted(set(found.tolist())) == [*range(8), *range(9, 12)]


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_fraction_of_the_dreams_begins_where_episodes_begin(share: float) -> None:
    weight = with_beginnings(np.arange(1.0, F + 1), OFFSETS, share)
    assert weight[[0, 9]].sum() == pytest.approx(share)
    assert weight.sum() == pytest.approx(1.0) and weight[[8, 12, 13]].tolist() == [0, 0, 0]
    assert weight[9] == pytest.approx(10 * weight[0]), "weights keep their proportions"
    latents = make_latents()
    starts = build_starts(make_memories(), latents, 400, 5, np.random.default_rng(1), weight)
    found = np.abs(latents.mu[:, None] - starts.z).max(-1).argmin(0)
    at_first = np.isin(found, [0, 9])
    assert at_first.mean() == pytest.approx(share, abs=0.1)
    assert not starts.h[:, at_first].any(), "M remembers nothing there"


@pytest.mark.parametrize("warmup", [0, 3, 100])
def test_state_equals_the_sequence_forward_over_the_prefix(warmup: int) -> None:
    memories, latents = make_memories(2), make_latents()
    starts = build_starts(memories, latents, 40, warmup, np.random.default_rng(1))
    assert len(np.unique(starts.z[:, 0])) > 5
    for s in range(len(starts)):
        frame = int(np.flatnonzero(np.isclose(latents.mu, starts.z[s]).all(1))[0])
        begin = int(OFFSETS[np.searchsorted(OFFSETS, frame, side="right") - 1])
        first = max(begin, frame - warmup)
        for m, memory in enumerate(memories):
            state = memory.initial_state(1)
            if frame > first:
                z = torch.from_numpy(latents.mu[None, first:frame])
                action = torch.from_numpy(latents.action[None, first:frame])
                with torch.no_grad():
                    _, _, state = memory(z, action)
            np.testing.assert_allclose(starts.h[m, s], state.h[0], atol=1e-5)
            np.testing.assert_allclose(starts.c[m, s], state.c[0], atol=1e-5)


def test_one_generator_gives_one_result_and_z_is_sampled() -> None:
    def build(seed: int) -> DreamStarts:
        latents, rng = make_latents(logvar=0.0), np.random.default_rng(seed)
        return build_starts(make_memories(), latents, 2000, 2, rng)

    first, again, other = build(0), build(0), build(1)
    assert np.array_equal(first.z, again.z) and np.array_equal(first.h, again.h)
    assert not np.array_equal(first.z, other.z)
    assert len(np.unique(first.z[:, 0])) == 2000


def test_weights_choose_the_frames() -> None:
    latents, weight = make_latents(), np.zeros(F)
    weight[[2, 10]] = 1, 3
    starts = build_starts(make_memories(), latents, 400, 1, np.random.default_rng(0), weight)
    fraction = np.isclose(starts.z, latents.mu[10]).all(1).mean()
    assert np.isclose(starts.z, latents.mu[2]).all(1).mean() == pytest.approx(1 - fraction)
    assert fraction == pytest.approx(0.75, abs=0.08)


@pytest.mark.parametrize("weight", [np.zeros(F), np.ones(3), np.full(F, np.nan)])
def test_bad_weights_are_refused(weight: np.ndarray[Any, Any]) -> None:
    with pytest.raises(UserError, match="weight"):
        build_starts(make_memories(), make_latents(), 4, 1, np.random.default_rng(0), weight)


def test_episodes_without_a_step_are_refused() -> None:
    latents = make_latents()
    latents.offsets = np.arange(F + 1)
    with pytest.raises(UserError, match="no recorded episode has a step"):
        build_starts(make_memories(), latents, 4, 1, np.random.default_rng(0))


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    good = make_starts()
    with pytest.raises(UserError, match="dream starts have"):
        DreamStarts(good.z[:3], good.h, good.c)


def test_states_before_a_loss() -> None:
    """Two episodes: one is lost for four steps and finds back, the other is never paid."""
    reward = np.array([1, 1, 1, -1, -1, -1, -1, 2, 2, 0, -1, -1, -1, -1, 0], np.float32)
    offsets = np.array([0, 10, 15])
    lost = before_off_track(reward, offsets, before=2, streak=4)
    assert np.flatnonzero(lost).tolist() == [1, 2, 3, 10]
    assert not before_off_track(reward, offsets, before=2, streak=5).any()
