"""A block on a line, with what can be odd about an environment: `worldmodels check` judges each."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Fake(gym.Env[Any, Any]):
    """A block on a line; a kind changes one thing about it."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # gymnasium's own convention

    def __init__(self, kind: str = "fine") -> None:
        self.kind = kind
        self.observation_space = spaces.Box(0, 255, (32, 48, 3), np.uint8)
        self.action_space: spaces.Space[Any] = spaces.Discrete(2)
        if kind == "pendulum":
            self.action_space = spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        rng = np.random.default_rng() if self.kind == "unseeded" else self.np_random
        self.x = 0.5 if self.kind == "same" else float(rng.uniform(0.4, 0.6))
        self.speed, self.t = 0.0, 0
        self.last = int(rng.integers(400, 600)) if self.kind == "late" else 0
        return self._frame(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Any]:
        self.t += 1
        push = float(np.ravel(action)[0]) / 2 if self.kind == "pendulum" else 2.0 * action - 1
        slow = {"slow": 0.01, "long": 0.05}.get(self.kind, 1.0)
        self.speed = 0.8 * self.speed + 0.02 * slow * push
        self.x += self.speed
        fell = not 0.1 < self.x < 0.9
        ends = {"one step": True, "two steps": self.t >= 2, "clock": self.t >= 2048}
        ends["late"] = self.t >= self.last
        ends |= dict.fromkeys(("endless", "pendulum", "drawn out"), False)
        over = ends.get(self.kind, fell)
        self.x = float(np.clip(self.x, 0, 1))
        return self._frame(), self._reward(over), bool(over), False, {}

    def _reward(self, over: bool) -> float:
        if self.kind == "take cover":
            return 0.0 if over else 4.0
        pays = {
            "never": 0.0,
            "goal": float(over and self.x > 0.5),
            "last": float(over),
            "rare": float(self.t % 20 == 0),
            "bonus": 10.0 if over and self.x > 0.5 else 1.0,
        }
        pays |= {"negative": -1.0, "pendulum": -abs(self.x - 0.5) - 0.1}
        pays |= {"slow": self.x, "clock": self.x, "one step": self.x}
        return pays.get(self.kind, 1.0)

    def _frame(self) -> Any:
        blind = {"black": 0, "white": 255, "stuck": 100}
        frame = np.full((32, 48, 3), blind.get(self.kind, 60), np.uint8)
        if self.kind not in blind:
            left = self.x * 40
            columns = np.arange(48)
            cover = np.minimum(columns + 1, left + 4) - np.maximum(columns, left)
            frame[10:16] += (190 * np.clip(cover, 0, 1)).astype(np.uint8)[:, None]
        return frame


LIMITS: dict[str, int | None] = {"pendulum": 200, "slow": 400, "long": 4000, "drawn out": 3000}
LIMITS["late"] = 2100
LIMITS |= dict.fromkeys(("endless", "clock", "frail"))
KINDS = (
    *("fine", "pendulum", "slow", "long", "endless", "same", "unseeded", "two steps"),
    *("clock", "frail", "drawn out", "last", "bonus", "one step", "late"),
    *("take cover", "never", "goal", "rare", "negative", "black", "white", "stuck"),
)


def name_of(kind: str) -> str:
    return f"tests/Fake{kind.title().replace(' ', '')}-v0"


for _kind in KINDS:
    _limit = LIMITS.get(_kind, 500)
    if name_of(_kind) not in gym.registry:
        gym.register(
            name_of(_kind),
            entry_point=f"{__name__}:Fake",
            max_episode_steps=_limit,
            kwargs={"kind": _kind},
        )
