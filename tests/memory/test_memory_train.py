"""Training of M: it learns a known system, one seed gives one result, and resume is exact."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import worldmodels.memory.train as training
from worldmodels.memory.interface import Memory
from worldmodels.memory.kinds import build
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.sequences import SequenceStreams
from worldmodels.memory.train import MemoryTrainConfig, fit_reward_model, reward_kind, train_memory
from worldmodels.protocols import UserError
from worldmodels.vision.latents import Latents

E, T, Z, A = 12, 40, 2, 1
SHAPE = MDNRNNConfig(z_dim=Z, action_size=A, hidden_size=16, mixtures=2, dropout=0.1)
CFG = MemoryTrainConfig(steps=9, batch_size=4, sequence_length=8, checkpoint_every=4, log_every=3)


def system(seed: int = 0) -> Latents:
    """z moves by the action; the reward is -0.1, and 3.4 where the first coordinate is above 1."""
    rng = np.random.default_rng(seed)
    frames = E * (T + 1)
    action = rng.uniform(-1, 1, (frames, A)).astype(np.float32)
    mu = np.zeros((E, T + 1, Z), np.float32)
    moves = action.reshape(E, T + 1, A)
    for t in range(T):
        mu[:, t + 1] = 0.8 * mu[:, t] + moves[:, t]
    reward = np.where(mu[..., 0] > 1, 3.4, -0.1).astype(np.float32)
    reward[:, -1] = 0
    return Latents(
        mu=mu.reshape(frames, Z),
        logvar=np.full((frames, Z), -8, np.float32),
        action=action,
        reward=reward.reshape(frames),
        terminated=np.arange(E) % 3 == 0,
        offsets=np.arange(E + 1) * (T + 1),
        seeds=np.arange(E),
    )


def same(a: Memory, b: Memory) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_reward_model_reads_base_and_hit_value() -> None:
    model = fit_reward_model(system(), "event")
    assert model.base == pytest.approx(-0.1)
    assert model.event_value == pytest.approx(3.5)
    assert model.most is None
    reward = np.tile(np.array([0, 0, 0, 1, 3], np.float32), E * (T + 1))[: E * (T + 1)]
    several = dataclasses.replace(system(), reward=reward)
    count = fit_reward_model(several, "count")
    assert count.most is not None and count.event_value * count.most == pytest.approx(3)
    raw = fit_reward_model(system(), "raw")
    target = raw.target(torch.tensor([raw.shift]))
    assert float(target) == pytest.approx(0)


def test_the_kind_of_reward_is_read_off_the_data() -> None:
    latents = system()
    assert reward_kind(latents) == "event"
    varied = np.random.default_rng(0).normal(size=latents.num_frames).astype(np.float32)
    assert reward_kind(dataclasses.replace(latents, reward=varied)) == "two_hot"
    several = latents.reward.copy()
    several[np.flatnonzero(several > 1)[::3]] += 3.5
    assert reward_kind(dataclasses.replace(latents, reward=several)) == "count"
    constant = np.ones(latents.num_frames, np.float32)
    assert reward_kind(dataclasses.replace(latents, reward=constant)) == "two_hot"


@pytest.mark.parametrize("paid", [0.0, 1.0, -0.3])
def test_a_constant_reward_is_known_and_costs_nothing(paid: float) -> None:
    latents = system()
    latents = dataclasses.replace(latents, reward=np.full(latents.num_frames, paid, np.float32))
    reward = fit_reward_model(latents, "two_hot")
    lines: list[dict[str, float]] = []
    shape = dataclasses.replace(SHAPE, reward="two_hot")
    memory = train_memory(CFG, shape, reward, latents, seed=0, log=lambda **x: lines.append(x))
    assert {line["reward_loss"] for line in lines} == {0.0}
    _, output, _ = memory(torch.randn(3, 5, Z), torch.randn(3, 5, A))
    torch.testing.assert_close(reward.expected(output.reward), torch.full((3, 5), paid))


def test_a_constant_raw_reward_has_no_scale() -> None:
    latents = system()
    latents = dataclasses.replace(latents, reward=np.full(latents.num_frames, 4, np.float32))
    model = fit_reward_model(latents, "raw")
    assert model.expected(torch.tensor([3.0, -7.0])).tolist() == [4.0, 4.0]
    assert model.target(torch.tensor([4.0])).tolist() == [0.0]


def test_two_hot_learns_rewards_of_any_scale() -> None:
    """z's first coordinate decides whether a step pays -1, 0 or 100 units."""
    latents, found = system(), []
    paid = np.select([latents.mu[:, 0] > 1, latents.mu[:, 0] < -0.5], [100.0, -1.0], 0.0)
    z, action = (torch.from_numpy(x).view(E, T + 1, -1) for x in (latents.mu, latents.action))
    for scale in (1e-3, 1.0, 1e6):
        scaled = dataclasses.replace(latents, reward=(scale * paid).astype(np.float32))
        reward = fit_reward_model(scaled, "two_hot")
        shape = dataclasses.replace(SHAPE, reward="two_hot", dropout=0.0)
        cfg = dataclasses.replace(CFG, steps=60, learning_rate=2e-2)
        memory = train_memory(cfg, shape, reward, scaled, seed=0)
        _, output, _ = memory(z[:, :-1], action[:, :-1])
        found.append(reward.expected(output.reward).detach().numpy() / scale)
    error = found[1] - paid.reshape(E, T + 1)[:, :-1]
    assert np.sqrt(np.square(error).mean()) < 0.8 * paid.std()  # of the best constant: 1
    assert abs(error.mean()) < 0.2 * paid.std()
    np.testing.assert_allclose(found[0], found[1], atol=1.0)
    np.testing.assert_allclose(found[2], found[1], atol=1.0)


def test_a_reward_without_weight_is_predicted_by_its_mean() -> None:
    latents = system()
    cfg, shape = (
        dataclasses.replace(CFG, reward_weight=0.0),
        dataclasses.replace(SHAPE, reward="two_hot"),
    )
    reward = fit_reward_model(latents, "two_hot")
    memory = train_memory(cfg, shape, reward, latents, seed=0)
    _, output, _ = memory(torch.randn(1, 5, Z), torch.randn(1, 5, A))
    steps = np.delete(latents.reward, latents.offsets[1:] - 1)
    mean = torch.full((1, 5), float(steps.mean()))
    torch.testing.assert_close(reward.expected(output.reward), mean, rtol=2e-3, atol=0.0)


def test_learns_the_system() -> None:
    lines: list[dict[str, float]] = []
    cfg = MemoryTrainConfig(
        steps=250, batch_size=8, sequence_length=10, log_every=25, learning_rate=1e-2
    )
    latents = system()
    reward = fit_reward_model(latents, "event")
    train_memory(
        cfg, SHAPE, reward, latents, seed=0, holdout=system(1), log=lambda **x: lines.append(x)
    )
    assert lines[-1]["val_nll"] < lines[0]["nll"] - 1
    assert lines[-1]["val_reward_loss"] < 0.5 * lines[0]["reward_loss"]


@pytest.mark.parametrize("dropout", [False, True])
def test_the_state_carried_on_has_seen_the_episode_alone(dropout: bool) -> None:
    latents = system()
    memory = build(SHAPE)
    cfg = dataclasses.replace(CFG, posterior_noise=0.0)
    streams = SequenceStreams(latents, 8, 1, seed=0, exact=True)
    z, action = (torch.from_numpy(x)[None] for x in (latents.mu, latents.action))
    state, checked = memory.initial_state(1), 0
    for batch in itertools.islice(streams.batches(), streams.steps_per_epoch()):
        frame = int((latents.action == batch.action[0, 0].numpy()).argmax())
        stop = frame + int(batch.mask.sum())
        noise, same_noise = (torch.Generator().manual_seed(frame) for _ in range(2))
        torch.randn(batch.mu.shape, generator=same_noise)
        mask = memory.sample_mask(1, same_noise) if dropout else None
        before = memory.initial_state(1) if batch.restart[0] else state
        window = training.draw_window(memory, batch, state, noise, cfg, dropout)
        reward = fit_reward_model(latents, "event")
        _, state = training.memory_losses(memory, reward, window, cfg)
        if stop + 1 not in latents.offsets:  # the episode continues
            _, _, wanted = memory(z[:, frame:stop], action[:, frame:stop], before, mask)
            torch.testing.assert_close(state, wanted)
            checked += 1
    assert checked > 2 * E


def interrupted(call: int) -> Callable[..., object]:
    """`draw_window` that is interrupted at one of its calls."""
    plain, calls = training.draw_window, []

    def draw(*args: Any, **options: Any) -> object:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return plain(*args, **options)

    return draw


@pytest.mark.parametrize("own_inputs", [0.0, 0.5])
def test_one_seed_one_result_and_exact_resume(
    own_inputs: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = dataclasses.replace(CFG, own_inputs=own_inputs)
    latents = system()
    reward = fit_reward_model(latents, "event")
    whole = train_memory(cfg, SHAPE, reward, latents, seed=3)
    assert same(whole, train_memory(cfg, SHAPE, reward, latents, seed=3))
    checkpoint = tmp_path / "memory.pt"
    with monkeypatch.context() as patched:
        patched.setattr(training, "draw_window", interrupted(7))
        with pytest.raises(KeyboardInterrupt):
            train_memory(cfg, SHAPE, reward, latents, seed=3, checkpoint=checkpoint)
    resumed = train_memory(cfg, SHAPE, reward, latents, seed=3, checkpoint=checkpoint)
    assert same(whole, resumed)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_a_training_resumes_on_another_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, then: str
) -> None:
    latents = system()
    reward = fit_reward_model(latents, "event")
    whole = train_memory(CFG, SHAPE, reward, latents, seed=3, holdout=latents)
    checkpoint = tmp_path / "memory.pt"
    with monkeypatch.context() as patched:
        patched.setattr(training, "draw_window", interrupted(7))
        with pytest.raises(KeyboardInterrupt):
            train_memory(CFG, SHAPE, reward, latents, seed=3, checkpoint=checkpoint, device=first)
    resumed = train_memory(
        CFG, SHAPE, reward, latents, seed=3, holdout=latents, checkpoint=checkpoint, device=then
    )
    assert next(resumed.parameters()).device.type == then
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.cpu().state_dict()[name], value, rtol=0.02, atol=2e-3)


def test_a_loss_that_is_not_finite_stops() -> None:
    latents = system()
    broken = {name: value * float("nan") for name, value in MDNRNN(SHAPE).state_dict().items()}
    with pytest.raises(UserError, match="M's loss is nan at step"):
        train_memory(CFG, SHAPE, fit_reward_model(latents, "event"), latents, seed=0, init=broken)


def test_bad_values_are_named() -> None:
    with pytest.raises(UserError, match=r"MemoryTrainConfig\.sequence_length is 1"):
        MemoryTrainConfig(sequence_length=1)
