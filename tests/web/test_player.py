"""The dream player in a browser: numbers as in Python, and everything that a person can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.browser import Page
from worldmodels.agent import Agent
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.engine import DreamEngine
from worldmodels.policies.opening import open_member
from worldmodels.web.weights import chosen_starts

STEPS = 50


def opened(tab: Page, page: Path, width: int = 1280, touch: bool = False) -> None:
    tab.problems.clear()
    tab.requests.clear()
    tab.open(page, width, 844, touch)
    tab.wait("window.dreamPlayer && dreamPlayer.whole")
    tab.js("dreamPlayer.dream.model.ends.rule = 'off'")  # no dream ends by chance


def clean(tab: Page, page: Path) -> None:
    assert tab.problems == []
    assert {url.partition(",")[0] for url in tab.requests} <= {
        page.resolve().as_uri(),
        "data:image/jpeg;base64",
        "data:",
    }
    assert tab.js("document.cookie + localStorage.length") == "0"
    assert tab.js("document.documentElement.scrollWidth <= innerWidth")


def mode(tab: Page) -> str:
    return str(tab.js("$('mode').textContent"))


def in_python(
    agent: Agent, start: int, uniform: Any, normal: Any, actions: Any = None
) -> tuple[list[dict[str, Any]], Any]:
    """The same dream as `dreamPlayer.follow`, by plain torch in float32."""
    members = range(len(agent.memories))
    cfg = DreamConfig(backend="torch", dtype="float32", ensemble="per_step")
    assert agent.starts is not None and agent.reward_model is not None
    parts = (agent.memories, agent.reward_model, agent.starts, cfg, agent.controller.carry)
    index = chosen_starts(len(agent.starts))[start : start + 1]
    steps = []
    with torch.inference_mode():
        dreamer = None if len(members) > 1 else 0
        world = DreamEngine(*parts).world(members, dreamer, index, None)
        for t in range(STEPS):
            action = agent.act(*world.seen()) if actions is None else torch.tensor([actions[t]])
            step = world.step(action, uniform[t : t + 1], normal[t : t + 1])
            found: dict[str, Any] = {"action": action[0].tolist(), "z": world.z[0].tolist()}
            found["reward"] = float(step.reward[0])
            if step.disagreement is not None:
                found["disagreement"] = float(step.disagreement[0])
            steps.append(found)
        return steps, agent.decode(world.z)[0]


def noise(agent: Agent, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    uniform = rng.random((STEPS, agent.z_dim + 3), dtype=np.float32)
    uniform[:, -1] = 0  # the first memory dreams
    return uniform, rng.standard_normal((STEPS, agent.z_dim), dtype=np.float32)


@pytest.mark.parametrize("which", ["car_racing", "choices"])
def test_fifty_steps_and_the_last_picture_are_python_s(
    which: str, tab: Page, discrete: Path, request: pytest.FixtureRequest
) -> None:
    agent = open_member("car-racing" if which == "car_racing" else discrete)
    opened(tab, request.getfixturevalue(which))
    tab.js("dreamPlayer.player.pause(true)")
    for start in (0, 7):
        uniform, normal = noise(agent, start)
        own, _ = in_python(agent, start, uniform, normal)
        # Actions are given: C multiplies the last bits of float32 by a thousand, in Python too.
        actions = [step["action"] for step in own]
        expected, picture = in_python(agent, start, uniform, normal, actions)
        words = ", ".join(map(json.dumps, (start, uniform.tolist(), normal.tolist(), actions)))
        found = tab.js(f"dreamPlayer.follow({words})")
        for mine, theirs in zip(found["steps"], expected, strict=True):
            for name, value in theirs.items():
                assert mine[name] == pytest.approx(value, abs=1e-3), name
        pixels = np.array(found["picture"]).reshape(64, 64, 4)[..., :3]
        assert np.abs(pixels - picture.astype(int)).max() <= 1
        free = tab.js(
            f"dreamPlayer.follow({', '.join(words.split(', ')[:1])}, "
            f"{json.dumps(uniform[:8].tolist())}, {json.dumps(normal[:8].tolist())})"
        )
        for mine, action in zip(free["steps"], actions[:8], strict=True):
            assert mine["action"] == pytest.approx(action, abs=1e-3)  # so is C


def test_a_count_has_a_limit(tab: Page, car_racing: Path) -> None:
    """`RewardModel.most` in JavaScript."""
    opened(tab, car_racing)
    for most, paid in ((1.5, 2.0), (None, 35.0)):
        facts = json.dumps({"kind": "count", "base": -1, "event": 2, "most": most})
        tab.js(f"dreamPlayer.dream.model.reward = {facts}")
        assert tab.js("dreamPlayer.dream.reward([18])") == pytest.approx(paid, abs=1e-3)


def test_a_person_takes_over_by_keys_and_gives_back(tab: Page, car_racing: Path) -> None:
    opened(tab, car_racing)
    assert mode(tab) == "The driver drives"
    began = tab.js("dreamPlayer.dream.steps")
    tab.wait(f"dreamPlayer.dream.steps > {began}")
    tab.key("ArrowLeft", "down")
    tab.key("ArrowUp", "down")
    assert mode(tab) == "You drive"
    tab.wait("dreamPlayer.player.hands.value[0] < -0.9 && dreamPlayer.player.hands.value[1] > 0.9")
    tab.wait("parseFloat(document.querySelector('.fill').style.left) < 6")
    tab.key("ArrowLeft", "up")
    tab.key("ArrowUp", "up")
    tab.wait("dreamPlayer.player.hands.value.every((x) => Math.abs(x) < 0.1)")
    tab.key(" ")
    assert mode(tab) == "The driver drives"
    tab.click("#take")
    assert mode(tab) == "You drive"
    tab.key("p")
    still = tab.js("dreamPlayer.dream.steps")
    tab.js("new Promise((done) => setTimeout(done, 250))")
    assert tab.js("dreamPlayer.dream.steps") == still
    tab.key("n")
    assert tab.js("dreamPlayer.dream.steps") <= 2
    tab.click("#starts button:nth-child(3)")
    assert tab.js("document.querySelector('#starts [aria-pressed=true]').ariaLabel").endswith("3")
    tab.js("dreamPlayer.dream.over = true, dreamPlayer.player.changed()")
    assert tab.js("getComputedStyle($('over')).display") == "grid"
    tab.click("#again")
    assert tab.js("$('over').hidden")
    clean(tab, car_racing)


def test_thumbs_drive_on_a_phone(tab: Page, car_racing: Path) -> None:
    opened(tab, car_racing, 390, touch=True)
    right, gas = "#pad div:first-child button:nth-child(2)", "#pad div:last-child button:last-child"
    for button in (right, gas):
        box = tab.js(
            f"(({{ width, height }}) => [width, height])"
            f"(document.querySelector({button!r}).getBoundingClientRect())"
        )
        assert min(box) >= 64
    tab.touch("touchStart", right, gas)
    assert mode(tab) == "You drive"
    tab.wait("dreamPlayer.player.hands.value[0] > 0.9 && dreamPlayer.player.hands.value[1] > 0.9")
    tab.touch("touchEnd")
    tab.wait("dreamPlayer.player.hands.value[0] < 0.1")
    clean(tab, car_racing)


def test_the_dials_change_the_dream(tab: Page, car_racing: Path) -> None:
    opened(tab, car_racing)
    tab.js("$('temperature').focus()")
    steps = tab.js("Number($('temperature').value)")
    tab.key("ArrowRight")
    assert tab.js("Number($('temperature').value)") == pytest.approx(steps + 0.05)
    assert mode(tab) == "The driver drives"  # the key was the slider's
    assert tab.js("$('temperature-value').textContent") == "1.05"
    tab.wait("Number($('spread').getAttribute('aria-valuenow')) > 0")
    assert tab.js("$('spread').querySelector('polyline').points.length") >= 1
    tab.js("$('numbers').scrollIntoView()")
    before = tab.js("[...dreamPlayer.dream.paint(1)]")
    tab.js(
        "(() => { const one = document.querySelector('.latent input'); one.value = 3;"
        "one.dispatchEvent(new Event('input')); })()"
    )
    index = tab.js("dreamPlayer.latents.tiles[0].index")
    assert tab.js(f"dreamPlayer.dream.z[{index}]") == pytest.approx(3)
    assert tab.js("dreamPlayer.player.paused")
    after = tab.js("[...dreamPlayer.dream.paint(1)]")
    assert np.abs(np.subtract(before, after)).mean() > 0.5
    tab.click("#undo")
    assert tab.js(f"dreamPlayer.dream.z[{index}]") != pytest.approx(3)
    tab.click("#go-on")
    assert not tab.js("dreamPlayer.player.paused")
    clean(tab, car_racing)


def test_reality_plays_beside_the_dream(tab: Page, car_racing: Path) -> None:
    opened(tab, car_racing)
    tab.js("dreamPlayer.reality.play(false), dreamPlayer.reality.anew(5)")
    assert tab.js("$('ahead').textContent") == "0 decisions ahead"
    assert tab.js("dreamPlayer.reality.drift[5]") == 0  # V's own picture of the same frame
    tab.js("$('reality').scrollIntoView()")
    tab.wait("dreamPlayer.reality.ready && dreamPlayer.reality.visible.now")
    tab.click("#real-play")
    tab.wait("dreamPlayer.reality.at > 15")
    tab.click("#real-play")
    told = tab.js("$('ahead').textContent")
    assert told.startswith(f"{tab.js('dreamPlayer.reality.at') - 5} decisions ahead")
    assert tab.js("dreamPlayer.reality.drift.at(-1)") > 0
    seen = "[...$('real').getContext('2d').getImageData(0, 0, 64, 64).data]"
    assert np.std(tab.js(seen)) > 10
    tab.click("#anew")
    assert tab.js("$('ahead').textContent") == "0 decisions ahead"
    tab.click("#enter")
    assert mode(tab) == "You drive"
    tab.wait("dreamPlayer.dream.steps > 1")
    assert tab.js("document.querySelector('#starts [aria-pressed=true]')") is None
    clean(tab, car_racing)


def test_the_newest_of_several_changes_of_sight_counts(tab: Page, car_racing: Path) -> None:
    opened(tab, car_racing)
    seen = """(() => {
        const stock = IntersectionObserver;
        window.IntersectionObserver = class {
          constructor(tell) { tell([{ isIntersecting: false }, { isIntersecting: true }]); }
          observe() {}
        };
        const found = watch($('dream')).now;
        window.IntersectionObserver = stock;
        return found; })()"""
    assert tab.js(seen) is True


def test_choices_have_numbered_keys_and_names_are_text(tab: Page, choices: Path) -> None:
    opened(tab, choices)
    assert mode(tab) == "The agent acts"
    tab.key("3")
    assert mode(tab) == "You act"
    tab.wait("dreamPlayer.player.hands.value[2] === 1")  # a tap between two decisions
    assert tab.js("document.querySelectorAll('#memory option').length") == 2
    tab.wait("Number($('disagreement').getAttribute('aria-valuenow')) > 0")
    assert not tab.js("$('reality')")
    assert "<img src=x onerror=alert(1)>" in tab.js("document.title")
    assert not tab.js("document.querySelector('img')")
    clean(tab, choices)


def test_less_motion_waits_for_the_person(tab: Page, car_racing: Path) -> None:
    feature = {"name": "prefers-reduced-motion", "value": "reduce"}
    tab.call("Emulation.setEmulatedMedia", features=[feature])
    try:
        opened(tab, car_racing)
        assert tab.js("dreamPlayer.player.paused && !dreamPlayer.reality.playing")
        assert (
            np.std(tab.js("[...$('dream').getContext('2d').getImageData(0, 0, 64, 64).data]")) > 10
        )
    finally:
        tab.call("Emulation.setEmulatedMedia", features=[])


def test_everything_is_reached_and_named_without_a_mouse(tab: Page, car_racing: Path) -> None:
    opened(tab, car_racing)
    nameless = tab.js("""[...document.querySelectorAll('button, input, select')].filter((one) =>
        !(one.textContent.trim() || one.ariaLabel || one.closest('label')?.textContent.trim()))
        .map((one) => one.outerHTML)""")
    assert nameless == []
    tab.js("document.activeElement.blur(), scrollTo(0, 0)")
    reached = set()
    for _ in range(8):
        tab.key("Tab")
        reached.add(tab.js("document.activeElement.id"))
    assert {"take", "pause", "new", "temperature", "speed"} <= reached
