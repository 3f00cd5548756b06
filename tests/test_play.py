"""`worldmodels play`: films where there is no display, and keys in a window where there is one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imageio_ffmpeg
import numpy as np
import pygame
import pytest
import torch
from PIL import Image

from tests.experience.fakes import BOX, steps_of
from worldmodels import cli, envs
from worldmodels.agent import Agent
from worldmodels.commands import play
from worldmodels.controller.linear import ControllerConfig, num_parameters
from worldmodels.dream.config import Ends
from worldmodels.dream.env import Dream
from worldmodels.dream.starts import DreamStarts
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.rewards import RewardModel
from worldmodels.tasks.atari import FREEWAY
from worldmodels.tasks.car_racing import CAR_RACING
from worldmodels.tasks.classic import CART_POLE
from worldmodels.tasks.keys import Keyboard
from worldmodels.video import VideoConfig, scenes, window
from worldmodels.video.films import dream_steps, pace_of
from worldmodels.video.window import Window
from worldmodels.vision.vae import ConvVAE, VAEConfig

Z, H, HELD = 4, 8, 2
SPEC = ActionSpec("box", 2, (-1.0, 0.0), (1.0, 2.0))
PEDALS = ActionSpec("box", 3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def small_agent(folder: Path) -> Path:
    """An agent of the fake environment with random weights, that can dream."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shapes = (5, Z), (1, 5, H), (1, 5, H)
    cfg = ControllerConfig.for_action_space(SPEC, None)
    agent = Agent(
        ConvVAE(VAEConfig(Z, 4)),
        [MDNRNN(MDNRNNConfig(Z, 2, H, 2, reward="raw"))],
        cfg,
        rng.standard_normal(num_parameters(cfg, Z, H)),
        env_id=BOX,
        frame_spec=FrameSpec(),
        action_spec=SPEC,
        reward_model=RewardModel("raw", 0.0, 1.0),
        starts=DreamStarts(*(rng.standard_normal(s).astype(np.float32) for s in shapes)),
        action_repeat=HELD,
        ends=Ends("off"),
    )
    return agent.save_pretrained(folder / "small")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_agent(tmp_path_factory.mktemp("agents"))


def run(*words: object) -> None:
    assert cli.main(["play", *map(str, words)]) == 0


def size_of(film: Path) -> tuple[tuple[int, int], float]:
    meta = next(imageio_ffmpeg.read_frames(str(film)))
    return meta["size"], meta["fps"]


# --- films


@pytest.mark.parametrize("more", [[], ["--dream"]])
def test_a_film_has_a_poster_and_the_speed_of_the_environment(
    folder: Path, tmp_path: Path, more: list[str]
) -> None:
    film = tmp_path / "film.mp4"
    run("--agent", folder, "--video", film, "--max-steps", "6", *more)
    size, fps = size_of(film)
    assert size[0] >= 784 and size[1] >= 300 and fps == 30
    assert Image.open(tmp_path / "film.png").size == size
    assert {path.name for path in tmp_path.iterdir()} == {"film.mp4", "film.png"}


def test_without_a_display_there_is_a_film_and_a_page(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def export(agent: str, path: Path) -> Path:
        path.write_text(agent)
        return path

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "worldmodels.web", SimpleNamespace(__path__=[]))
    monkeypatch.setitem(sys.modules, play.PAGE, SimpleNamespace(export=export))
    run("--agent", folder, "--max-steps", "4")
    said = capsys.readouterr().out.splitlines()[-1]
    for name in ("small.mp4", "small.png", "small.html"):
        assert f"runs/play/{name}" in said and (tmp_path / "runs/play" / name).is_file()


def test_an_agent_that_only_acts_is_filmed_without_its_dream(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Agent.from_pretrained(folder).without_dreams().save_pretrained(tmp_path / "acts")
    monkeypatch.chdir(tmp_path)
    run("--agent", tmp_path / "acts", "--max-steps", "4")
    said = capsys.readouterr().out.splitlines()[-1]
    assert "runs/play/acts.mp4" in said and "browser" not in said
    assert cli.main(["play", "--agent", str(tmp_path / "acts"), "--dream", "--max-steps", "4"]) == 2


def test_the_page_is_left_out_where_there_is_no_module_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play, "PAGE", "worldmodels.nothing.page")
    assert play.dream_page("car-racing", tmp_path / "x.html") is None


def test_what_cannot_be_filmed_is_not_driven_first(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(play, "record", lambda *_, **__: pytest.fail("it drove"))
    Agent.from_pretrained(folder).without_dreams().save_pretrained(tmp_path / "blind")
    words = ["play", "--agent", tmp_path / "blind", "--dream", "--video", tmp_path / "film.mp4"]
    assert cli.main([str(word) for word in words]) == 2
    assert "without its decoder" in capsys.readouterr().err
    assert not (tmp_path / "film.mp4").exists()


@pytest.mark.parametrize(
    ("rate", "every", "fps"), [(50, 2, 25), (8.75, 1, 9), (15, 1, 15), (30, 1, 30), (100, 4, 25)]
)
def test_a_film_shows_the_environments_own_speed(rate: float, every: int, fps: int) -> None:
    cfg = VideoConfig().at(rate)
    assert (cfg.every, cfg.fps) == (every, fps)


def test_the_pace_of_environments() -> None:
    assert pace_of("CarRacing-v3") == 50
    assert pace_of(BOX) == pace_of("Nowhere-v0") == 30


# --- keys


def test_keys_of_car_racing_are_gymnasiums() -> None:
    board = Keyboard.of(PEDALS, CAR_RACING.keys)
    np.testing.assert_array_equal(board.action([]), [0, 0, 0])
    np.testing.assert_array_equal(board.action(["up"]), [0, 1, 0])
    np.testing.assert_array_equal(board.action(["up", "left"]), [-1, 1, 0])
    np.testing.assert_array_equal(board.action(["left", "right", "down", "x"]), [0, 0, 1])
    assert board.action(["up"]).dtype == np.float32
    assert "up: gas" in str(board)


def test_choices_take_the_newest_key_and_rest_or_repeat() -> None:
    crossing = Keyboard.of(ActionSpec("discrete", 3), FREEWAY.keys)
    assert [crossing.action(held, 1) for held in ([], ["up"], ["up", "down"])] == [0, 1, 2]
    balance = Keyboard.of(ActionSpec("discrete", 2), CART_POLE.keys)
    assert balance.action([]) == 0
    assert balance.action(["right"]) == 1
    assert balance.action([], 1) == 1


def test_unnamed_actions_have_numbers_and_arrows() -> None:
    board = Keyboard.of(ActionSpec("discrete", 3, start=5), CAR_RACING.keys)  # of another space
    assert list(board.keys) == ["1", "2", "3"]
    assert board.action(["3"]) == 7
    numbers = Keyboard.of(ActionSpec("box", 2, (2.0, -4.0), (3.0, 4.0), "int64"), {})
    assert list(numbers.keys) == ["right", "down", "up"]
    action = numbers.action(["right", "down"])
    np.testing.assert_array_equal(action, [3, -4])
    assert action.dtype == np.int64


# --- the window


def press(name: str, up: bool = False) -> None:
    kind = pygame.KEYUP if up else pygame.KEYDOWN
    pygame.event.post(pygame.event.Event(kind, key=pygame.key.key_code(name)))


def test_a_window_knows_which_keys_are_held() -> None:
    frame = np.zeros((40, 60, 3), np.uint8)
    with Window("test", 1000) as shown:
        assert shown.show(frame, "a line")
        assert pygame.display.get_window_size() == (720, 480 + window.BAR)
        press("left")
        press("up")
        shown.show(frame)
        assert shown.keys() == shown.held == ["left", "up"]
        press("left", up=True)
        press("1")
        press("1", up=True)  # between two frames, and not missed
        shown.show(frame)
        assert (shown.keys(), shown.keys()) == (["1", "up"], ["up"])
        press("escape")
        assert not shown.show(frame)
    assert not pygame.display.get_init()


@contextmanager
def pressing(plan: dict[int, Sequence[str]]) -> Iterator[list[str]]:
    """Press keys at some frames of the windows that open, and keep the lines that they show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(play, "has_display", lambda: True)  # SDL's dummy driver draws nowhere
        patch.setattr(scenes, "LAST_SECONDS", 0.1)
        before, lines = Window.show, list[str]()

        def show(self: Window, frame: Any, line: str = "") -> bool:
            self.rate = 10_000
            before(self, frame, line)
            for name in plan.get(len(lines), ()):
                press(name)
            self._listen()
            lines.append(line)
            return not self.closed

        patch.setattr(Window, "show", show)
        yield lines


def returns(said: str) -> list[float]:
    return [float(found) for found in re.findall(r"return (-?[\d.]+) in", said)]


def test_a_person_acts_in_the_real_environment(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps, env = steps_of(3), envs.make(BOX)
    env.reset(seed=3)
    wanted = sum(float(env.step(np.array([1, 0], np.float32))[1]) for _ in range(steps))
    with pressing({2: ["right"]}) as lines:
        run("--agent", folder, "--keyboard", "--seed", "3")
    said = capsys.readouterr().out
    assert lines[:3] == [said.splitlines()[0]] * 3 and "right: + number 1" in lines[0]
    assert returns(said)[0] == pytest.approx(wanted, abs=0.05)
    assert said.count(f"in {steps} steps") == 2 and "small, the same episode" in said


def test_a_person_acts_in_the_dream(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent, steps = Agent.from_pretrained(folder), 8
    world = Dream(agent, horizon=steps // HELD)
    world.reset(seed=7)
    wanted = sum(world.step(np.array([-1, 2], np.float32))[1] for _ in range(steps // HELD))
    obs, its = world.reset(seed=7)[0], 0.0
    for _ in range(steps // HELD):
        obs, reward, *_ = world.step(scenes.dreamer(agent)(obs, ()))
        its += reward
    with pressing({0: ["left", "up"]}) as lines:
        run("--agent", folder, "--dream", "--keyboard", "--seed", "7", "--max-steps", steps)
    assert returns(capsys.readouterr().out) == [round(wanted, 1), round(its, 1)]
    moving = [line for line in lines if line.startswith("step")]
    assert len(moving) == steps  # frames between two decisions are shown, too


def test_the_dream_ends_where_m_says_for_a_person_an_agent_and_a_film(folder: Path) -> None:
    agent = Agent.from_pretrained(folder)
    agent.ends = Ends("threshold", 0.2)
    for chance, length in ((-9.0, 8), (9.0, HELD)):
        agent.memories[0].terminated.weight.data.zero_()
        agent.memories[0].terminated.bias.data.fill_(chance)
        scene = scenes.dream(agent, 8)
        for act in (scenes.person(scene.keyboard), scenes.dreamer(agent)):
            assert scenes.ride(scene, act, 1, 8).length == length
        *_, last = dream_steps(agent, 2, 8)
        assert (last.length == length).all()


def test_escape_ends_an_episode_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pressing({0: ["escape"]}) as lines:
        run("--agent", folder, "--keyboard")
    assert len(lines) == 1 and not returns(capsys.readouterr().out)


@pytest.mark.parametrize("more", [[], ["--dream"]])
def test_an_agent_acts_in_a_window(
    folder: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pressing({}) as lines:
        run("--agent", folder, "--max-steps", "4", *more)
    assert capsys.readouterr().out.endswith(" in 4 steps\n")
    assert [line for line in lines if line.startswith("step 4")]


def test_without_a_display_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    assert not window.has_display()
    monkeypatch.setenv("DISPLAY", ":0")
    assert window.has_display()
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert not window.has_display()


MISSING = [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]


@contextmanager
def screen() -> Iterator[dict[str, str]]:
    """A virtual display, and the environment in which programs find it."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x1024x24"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(read) as told:
            display = f":{told.readline().strip()}"
        yield {**os.environ, "DISPLAY": display, "SDL_VIDEODRIVER": "x11"}
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_real_keys_reach_the_windows_of_a_virtual_display(folder: Path) -> None:
    words = ["play", "--agent", str(folder), "--keyboard", "--max-steps", "60"]
    code = f"""
import tests.experience.fakes
from worldmodels import cli
from worldmodels.video import scenes
scenes.LAST_SECONDS = 0
raise SystemExit(cli.main({words}) or cli.main({[*words, "--dream"]}))
"""
    with screen() as environment:
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60  # on a busy machine the windows take their time
        while process.poll() is None and time.monotonic() < deadline:
            for event in ("keydown", "keyup"):
                subprocess.run(["xdotool", event, "Right"], env=environment, check=False)
                time.sleep(0.3)
        process.kill()
        said, _ = process.communicate()
    assert process.returncode == 0, said
    assert said.count("right: + number 1") == 2 and "you, dream" in said
    env, steps = envs.make(BOX), steps_of(1_000_000)
    env.reset(seed=1_000_000)
    rest = sum(float(env.step(np.zeros(2, np.float32))[1]) for _ in range(steps))
    assert returns(said)[0] > rest + 3  # the key was held for three steps at least
