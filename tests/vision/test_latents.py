"""Latents: padding never shows, files round-trip, damage is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.episode import Episode
from worldmodels.protocols import UserError
from worldmodels.vision.latents import Latents, encode_episodes, encode_frames
from worldmodels.vision.vae import ConvVAE, VAEConfig, to_float

Z, A = 4, 2
SPEC = ActionSpec("box", A, (-1.0, -1.0), (1.0, 1.0))


def make_model() -> ConvVAE:
    torch.manual_seed(0)
    return ConvVAE(VAEConfig(z_dim=Z, width=4)).eval()


def episode(seed: int, steps: int) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        obs=rng.integers(0, 255, (steps + 1, 64, 64, 3)).astype(np.uint8),
        action=rng.uniform(-1, 1, (steps, A)).astype(np.float32),
        reward=rng.normal(size=steps).astype(np.float32),
        terminated=seed % 2 == 0,
        truncated=seed % 2 == 1,
        seed=seed,
    )


def test_encoding_is_the_encoder_whatever_the_batch() -> None:
    model, frames = make_model(), episode(0, 300).obs
    mu, logvar = encode_frames(model, frames, bfloat16=False)
    with torch.inference_mode():
        expected = model.encode(to_float(torch.from_numpy(frames)))
    np.testing.assert_allclose(mu, expected[0].numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logvar, expected[1].numpy(), rtol=1e-4, atol=1e-5)
    part, _ = encode_frames(model, frames[:7], bfloat16=False)
    assert np.array_equal(part, mu[:7])


def test_episodes_lie_end_to_end() -> None:
    episodes = [episode(0, 5), episode(1, 9), episode(2, 3)]
    latents = encode_episodes(make_model(), episodes, SPEC)
    assert latents.offsets.tolist() == [0, 6, 16, 20]
    assert latents.lengths().tolist() == [5, 9, 3]
    assert latents.terminated.tolist() == [True, False, True]
    assert np.array_equal(latents.action[6:15], episodes[1].action)
    assert not latents.action[15].any()
    assert np.array_equal(latents.reward[6:15], episodes[1].reward)
    again = Latents.of(latents.tensors(), Path("z"), "encode again")
    np.testing.assert_allclose(again.mu, latents.mu, atol=2e-3)
    assert np.array_equal(again.offsets, latents.offsets)
    chosen = latents.select([2, 0])
    assert chosen.seeds.tolist() == [2, 0]
    assert np.array_equal(chosen.mu[:4], latents.mu[16:])


def test_batches_reach_over_the_ends_of_episodes() -> None:
    episodes = [episode(seed, steps) for seed, steps in enumerate((200, 100, 300, 5))]
    mu = encode_episodes(make_model(), episodes, SPEC).mu
    alone = [encode_frames(make_model(), part.obs)[0] for part in episodes]
    assert np.array_equal(mu, np.concatenate(alone))


def test_an_episode_given_up_ends_the_dream() -> None:
    given_up = dataclasses.replace(episode(1, 3), lost=True)
    latents = encode_episodes(make_model(), [episode(1, 3), given_up], SPEC)
    assert latents.terminated.tolist() == [False, True]


def test_tensors_that_do_not_fit_each_other_are_named() -> None:
    tensors = encode_episodes(make_model(), [episode(0, 5)], SPEC).tensors()
    for name, tensor, message in (
        ("reward", tensors["reward"][:-1], "'reward' has shape"),
        ("offsets", tensors["offsets"] + 1, "has no episodes, or they have no steps"),
    ):
        with pytest.raises(UserError, match=message):
            Latents.of({**tensors, name: tensor}, Path("z"), "encode again")
    del tensors["mu"]
    with pytest.raises(UserError, match="lacks the tensor 'mu'; encode again"):
        Latents.of(tensors, Path("z"), "encode again")


def test_nothing_to_concatenate_is_said() -> None:
    with pytest.raises(UserError, match="no latents"):
        Latents.concatenate([])
