"""A headless Chromium over its debugging pipe: what tests of pages need, with no other package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
"""Its program; empty where it is not installed."""
FLAGS = (
    *("--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run"),
    *("--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio"),
    *("--disable-extensions", "--disable-background-networking", "--disable-sync"),
)
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, " ": 32, "Tab": 9}
"""Key codes of keys that are no letters."""


class Page:
    """A tab."""

    def __init__(self, send: Any, receive: Any, session: str) -> None:
        self._send, self._receive, self._session, self._number = send, receive, session, 0
        self.problems: list[str] = []
        """errors and warnings of the console, and exceptions"""
        self.requests: list[str] = []
        """addresses that the page asked for"""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        self._send({**message, "sessionId": self._session})
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer.get("method"), answer.get("params", {}))

    def _note(self, event: str | None, facts: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(facts["exceptionDetails"])[:500])
        if event == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.problems.append(facts["entry"]["text"])
        if event == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(facts["args"])[:500])
        if event == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])

    def open(self, path: Path, width: int = 1280, height: int = 900, touch: bool = False) -> None:
        """Open a file at a size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch, maxTouchPoints=5)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def js(self, code: str) -> Any:
        """The value of an expression, or of what a promise brings."""
        found = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, json.dumps(found["exceptionDetails"])[:500]
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.js(f"Boolean({condition})"):
            assert time.monotonic() < end, f"not within {seconds} s: {condition}; {self.problems}"
            time.sleep(0.02)

    def key(self, key: str, kind: str = "press") -> None:
        """Press a key, or only do its "down" or "up"."""
        code = KEYS.get(key) or ord(key.upper())
        facts: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
        if kind in ("press", "down"):
            text = {"text": key} if len(key) == 1 else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", **facts, **text)
        if kind in ("press", "up"):
            self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def touch(self, kind: str, *selectors: str) -> None:
        """Send "touchStart" or "touchEnd" with a finger on each element."""
        points = [dict(zip("xy", self.middle(each), strict=True)) for each in selectors]
        points = [{**point, "id": i} for i, point in enumerate(points)]
        self.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    def middle(self, selector: str) -> tuple[float, float]:
        """Where an element's middle is, scrolled into view."""
        x, y = self.js(
            f"(() => {{ const e = document.querySelector({selector!r});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        return x, y

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def browser(*flags: str) -> Iterator[Page]:
    """A Chromium of its own with one empty tab; it ends with the block."""
    to_child, ours = os.pipe()
    theirs, from_child = os.pipe()

    def receive() -> Any:
        while b"\0" not in pending[0]:
            part = os.read(theirs, 1 << 16)
            assert part, "Chromium has ended"
            pending[0] += part
        message, _, pending[0] = pending[0].partition(b"\0")
        return json.loads(message)

    def send(message: Any) -> None:
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(ours, data) :]

    def root(method: str, **params: Any) -> Any:
        send({"id": 0, "method": method, "params": params})
        while (answer := receive()).get("id") != 0:
            pass
        return answer["result"]

    def fds() -> None:
        for number in (os.dup2(to_child, 100), os.dup2(from_child, 101)):
            os.dup2(number, number - 97)

    pending = [b""]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        child = subprocess.Popen(
            [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(3, 4, to_child, from_child),
            preexec_fn=fds,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        try:
            target = root("Target.createTarget", url="about:blank")["targetId"]
            attached = root("Target.attachToTarget", targetId=target, flatten=True)
            yield Page(send, receive, attached["sessionId"])
        finally:
            child.kill()
            child.wait()
            os.close(ours)
            os.close(theirs)
