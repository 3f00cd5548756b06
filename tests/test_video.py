"""Films: the dream is M's, the replay is the episode, and the file plays and is small."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from worldmodels import video
from worldmodels.agent import Agent
from worldmodels.controller.linear import ControllerConfig, num_parameters
from worldmodels.dream.config import Ends
from worldmodels.dream.starts import DreamStarts
from worldmodels.envs.frames import FrameSpec, to_vision
from worldmodels.envs.spaces import ActionSpec
from worldmodels.evaluation import evaluate
from worldmodels.experience.episode import EpisodeResult
from worldmodels.memory.interface import MemoryState
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.rewards import RewardModel
from worldmodels.protocols import UserError
from worldmodels.video import VideoConfig, films
from worldmodels.video.drawing import compose
from worldmodels.video.films import Recording, Views, dream_along, dream_strip, reconstructions
from worldmodels.vision.vae import ConvVAE, VAEConfig

T, Z, H, SYNC = 23, 4, 8, 10
ENV = "worldmodels/CarRacing-v3"


@pytest.fixture(scope="module")
def agent() -> Agent:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shapes = (5, Z), (1, 5, H), (1, 5, H)
    return Agent(
        ConvVAE(VAEConfig(Z, 4)),
        [MDNRNN(MDNRNNConfig(Z, 3, H, 2))],
        ControllerConfig(),
        rng.standard_normal(num_parameters(ControllerConfig(), Z, H)),
        env_id="CarRacing-v3",
        frame_spec=FrameSpec(84),
        action_spec=ActionSpec("box", 3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        reward_model=RewardModel("event", -0.1, 3.3),
        starts=DreamStarts(*(rng.standard_normal(s).astype(np.float32) for s in shapes)),
        ends=Ends("off"),
    )


def mortal(agent: Agent, chance: float, ends: Ends) -> Agent:
    """A copy whose M gives every step the same chance of an end."""
    other = copy.copy(agent)
    other.memories, other.ends = copy.deepcopy(agent.memories), ends
    other.memories[0].terminated.weight.data.zero_()
    other.memories[0].terminated.bias.data.fill_(float(np.log(chance / (1 - chance))))
    return other


def recording(steps: int = T) -> Recording:
    rng = np.random.default_rng(1)
    return Recording(
        rng.integers(0, 256, (steps + 1, 96, 96, 3), dtype=np.uint8),
        rng.uniform(0, 1, (steps, 3)).astype(np.float32),
        rng.standard_normal(steps),
    )


def read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return meta, [np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader]


def test_dream_is_m_stepped_from_reality(agent: Agent) -> None:
    taken = recording()
    mu = torch.randn(T + 1, Z, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        z = dream_along(agent, mu, taken.actions, SYNC, temperature=0).z
        for t in (0, 10, 20):
            torch.testing.assert_close(z[t], mu[t])
        memory, action = agent.memories[0], torch.from_numpy(taken.actions)
        state: MemoryState = memory.initial_state(1)
        for t in range(10):
            _, state = memory.step(mu[t : t + 1], action[t : t + 1], state)
        now = mu[10:11]
        for t in range(10, 20):
            torch.testing.assert_close(z[t : t + 1], now)
            out, state = memory.step(now, action[t : t + 1], state)
            best = out.log_pi.argmax(-1, keepdim=True)
            now = out.mu.gather(-1, best).squeeze(-1)
        first, second = (dream_along(agent, mu, taken.actions, SYNC, 1.0, s).z for s in (0, 1))
        again = dream_along(agent, mu, taken.actions, SYNC, 1.0, 0).z
    torch.testing.assert_close(first, again)
    assert (first - second).abs().max() > 0
    assert not torch.equal(first[T], mu[T])  # the last step is dreamt, too


def test_a_dream_that_ends_stands_still_until_it_sees_reality_again(agent: Agent) -> None:
    taken, mu = recording(), torch.zeros(T + 1, Z)
    certain = mortal(agent, 0.3, Ends("threshold", 0.2))
    z, end, over = dream_along(certain, mu, taken.actions, SYNC)
    sync = np.arange(T + 1) % SYNC == 0
    np.testing.assert_array_equal(over, ~sync)
    np.testing.assert_allclose(end, np.where(sync, 0.0, 0.3), rtol=1e-5)
    for first in (0, 10, 20):
        inside = z[first + 1 : min(first + SYNC, T + 1)]
        torch.testing.assert_close(inside, inside[:1].expand_as(inside))
    careful = dream_along(mortal(agent, 0.3, Ends("threshold", 0.4)), mu, taken.actions, SYNC)
    assert not careful.over.any() and careful.end.max() == pytest.approx(0.3)
    chance = mortal(agent, 0.3, Ends("sampled"))
    runs = [dream_along(chance, mu, taken.actions, T, seed=s).over.sum() for s in range(60)]
    assert T - np.mean(runs) + 1 == pytest.approx(1 / 0.3, abs=1.0)  # the step it ends at


def test_the_film_of_dreams_ends_with_the_last_of_them(agent: Agent) -> None:
    cfg = VideoConfig(every=1, panel=32)
    assert len(list(video.dream_frames(agent, cfg, 4, 30))) == 30
    fatal = mortal(agent, 0.3, Ends("threshold", 0.2))
    assert len(list(video.dream_frames(fatal, cfg, 4, 30))) == 2  # the start and the end
    chance = mortal(agent, 0.1, Ends("sampled"))
    films_of = [list(video.dream_frames(chance, cfg, 1, 400, seed)) for seed in range(60)]
    assert np.mean([len(frames) - 1 for frames in films_of]) == pytest.approx(10, abs=4)
    again = list(video.dream_frames(chance, cfg, 1, 400, 3))
    np.testing.assert_array_equal(np.stack(again), np.stack(films_of[3]))


def test_views_are_what_v_sees_and_decodes(agent: Agent) -> None:
    taken = recording()
    seen = video.views(agent, taken, VideoConfig(every=3, sync=SYNC))
    np.testing.assert_array_equal(seen.seen, to_vision(taken.frames[::3], agent.frame_spec))
    mu = agent.encode(taken.frames[::3])[0]
    error = np.abs(seen.reconstructed.astype(int) - agent.decode(mu))
    assert error.max() <= 1
    np.testing.assert_array_equal(seen.dreamt[0], seen.reconstructed[0])


def test_with_held_actions_only_the_frames_of_decisions_count(agent: Agent) -> None:
    taken, cfg = recording(), VideoConfig(every=2, sync=SYNC)
    held = copy.copy(agent)
    held.action_repeat = 4
    seen = video.views(held, taken, cfg)
    assert (seen.every, seen.sync) == (4, 8)
    np.testing.assert_array_equal(seen.seen, to_vision(taken.frames[::4], agent.frame_spec))
    np.testing.assert_array_equal(seen.dreamt[0], seen.reconstructed[0])
    np.testing.assert_array_equal(seen.dreamt[2], seen.reconstructed[2])
    shown = list(films.episode_frames(taken, seen, cfg, "a track"))
    assert len(shown) == len(range(0, T + 1, 2))  # reality continues while the dream waits


def test_replay_is_the_episode() -> None:
    result = evaluate("random", ENV, [500_000], 1, max_steps=15, keep_actions=True)
    taken = video.replay(ENV, result.episodes[0])
    assert taken.frames.shape == (16, 96, 96, 3)
    assert taken.rewards.sum() == pytest.approx(result.episodes[0].total_reward)
    with pytest.raises(UserError, match="keep_actions"):
        video.replay(ENV, EpisodeResult(0.0, 1, seed=0, terminated=False, truncated=True))


def test_film_writes_all_that_a_report_shows(agent: Agent, tmp_path: Path) -> None:
    result = evaluate(agent, ENV, [500_000, 500_001], 1, max_steps=20, keep_actions=True)
    cfg = VideoConfig(panel=32, sync=SYNC)
    media = tmp_path / "media"
    video.film(agent, ENV, result, media, cfg)
    names = {"best.mp4", "median.mp4", "worst.mp4", "dream.mp4", "dream.png", "reconstructions.png"}
    noted = json.loads((media / "episodes.json").read_text())
    assert noted["best"]["return"] == result.returns.max()
    assert {p.name for p in media.iterdir()} == {*names, "episodes.json"}
    meta, frames = read(media / "best.mp4")
    assert meta["codec"] == "h264" and meta["fps"] == 25
    assert len(frames) == 11  # steps 0, 2, ..., 20
    for name in ("best", "dream"):
        assert noted[name]["size"] == list(read(media / f"{name}.mp4")[0]["size"])
    picture = Image.open(media / "reconstructions.png")
    assert picture.size == (8 * (128 + 4) + 4, 3 * (128 + 18) + 4)


def test_the_picture_of_losses_shows_the_frame_whose_ball_is_lost() -> None:
    """In frame 5 of 8 V forgets a ball that moves, in frame 2 as much of what stands still."""
    seen = np.zeros((8, 64, 64, 3), np.uint8)
    for t, frame in enumerate(seen):
        frame[30, 4 * t : 4 * t + 2] = frame[50, :2] = 255
    kept = seen.copy()
    kept[5, 30], kept[2, 50] = 0, 0
    views = Views(2, 4, seen, kept, kept, np.zeros(8, np.float32), np.zeros(8, np.bool_))
    picture = reconstructions(views, columns=1, scale=1)
    np.testing.assert_array_equal(picture[18 : 18 + 64, 4 : 4 + 64], seen[5])


def test_film_stays_below_its_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 256, (96, 128, 3), dtype=np.uint8) for _ in range(100))
    path = video.write_video(tmp_path / "noise.mp4", noise, VideoConfig(max_bytes=60_000))
    assert path.stat().st_size < 1.25 * 60_000


def test_frames_come_back_from_the_film_as_they_went_in(tmp_path: Path) -> None:
    plain = [np.full((64, 80, 3), shade, np.uint8) for shade in (20, 120, 220)]
    _, frames = read(video.write_video(tmp_path / "x.mp4", plain, VideoConfig()))
    assert len(frames) == 3
    for got, want in zip(frames, plain, strict=True):
        np.testing.assert_allclose(got.astype(int), want, atol=6)


def test_panels_hold_frames_of_any_shape() -> None:
    tall, wide = np.full((210, 160, 3), 200, np.uint8), np.full((64, 96, 3), 90, np.uint8)
    sheet = compose([tall, wide], ["tall", "wide"], ["a", "b"], 48, 0.5)
    assert sheet.shape[0] % 2 == 0 and sheet.shape[1] % 2 == 0
    assert (sheet[4 + 24, 4 + 24] == 200).all()
    assert (sheet[4 + 24, 4 + 48 + 4 + 24] == 90).all()


def test_strip_begins_where_the_dream_saw_reality(agent: Agent) -> None:
    seen = video.views(agent, recording(), VideoConfig(every=2, sync=SYNC))
    strip = dream_strip(seen, first=15, columns=4, scale=1)
    cell = strip[18 : 18 + 64, 4 : 4 + 64]
    np.testing.assert_array_equal(cell, seen.seen[5])  # step 10
    assert strip.shape == (2 * (64 + 18) + 4, 4 * (64 + 4) + 4, 3)


@pytest.mark.parametrize(
    ("kwargs", "names"),
    [({"panel": 33}, "panel"), ({"every": 0}, "every"), ({"temperature": -1.0}, "temperature")],
)
def test_bad_configs_are_named(kwargs: dict[str, Any], names: str) -> None:
    with pytest.raises(UserError, match=names):
        VideoConfig(**kwargs)


def test_agents_without_starts_have_no_dream_film(agent: Agent) -> None:
    awake = agent.with_parameters(agent.parameters)
    awake.starts = None
    with pytest.raises(UserError, match="nowhere to begin"):
        next(video.dream_frames(awake, VideoConfig()))
