"""Dream against reality: a controller's whole dreams beside its real episodes, and the alarm."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from worldmodels import envs
from worldmodels.agent import Agent
from worldmodels.controller.linear import Controllers
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.engine import DreamEngine
from worldmodels.dream.starts import DreamStarts
from worldmodels.envs.checks import time_limit
from worldmodels.evaluation import EvaluationResult
from worldmodels.evaluation.statistics import told
from worldmodels.executors import Executor, given_or_new
from worldmodels.memory.calibration import survival
from worldmodels.metrics import Survival

Floats: TypeAlias = NDArray[np.float64]

DREAMS = 64
"""Dreams of each controller."""
MATERIAL = 0.5
"""How much larger a dream's mean must be than the real one for an alarm, relative to the root mean
square of the real episodes: unlike their mean it is not 0 where rewards of both signs cancel."""
CONFIDENCE = 0.975
"""Confidence that the difference is not noise, one-sided."""
POINTS = 40
"""Points of a survival curve after the first."""
FEW = 0.05
"""Fraction of dreams that may end where reality does not, and no curve is worth drawing."""


@dataclass(frozen=True)
class Outcomes:
    """How N episodes or dreams went."""

    returns: Floats
    """(N,)"""
    lengths: NDArray[np.int64]
    """(N,) steps of the environment"""
    ended: NDArray[np.bool_]
    """(N,) whether it ended by itself: it was not cut off, and did not reach the task's goal"""

    @classmethod
    def of(cls, result: EvaluationResult) -> Outcomes:
        """Real episodes."""
        lengths = [episode.length for episode in result.episodes]
        ended = [episode.terminated and not episode.lap_finished for episode in result.episodes]
        return cls(result.returns, np.array(lengths, np.int64), np.array(ended, np.bool_))


class WholeDreams:
    """Dreams that begin with the first frames of real episodes and may last as long as these."""

    def __init__(
        self,
        agent: Agent,
        dream: DreamConfig,
        seeds: Sequence[int],
        max_steps: int | None,
        seed: int = 0,
        executor: Executor | None = None,
    ) -> None:
        """Reset the agent's environment with the seeds, and see each first frame through V.

        ``dream`` gives the dreams' randomness and ends, and ``seed`` is theirs; ``max_steps``
        limits the real episodes; ``executor`` (None: this process) makes the environment.
        """
        with given_or_new(executor, 1, 1) as worker:
            begin = partial(_first_frames, agent.env_id)
            ((_, (frames, own)),) = worker.map(begin, [list(seeds)])
        limits = [limit for limit in (max_steps, own) if limit is not None]
        z = agent.decide(frames, None, None, True)[1].z
        shape = (len(agent.memories), len(z))
        carry = agent.memories[0].carry_size
        h, c = (np.zeros((*shape, size), np.float32) for size in (agent.h_dim, carry))
        self.agent, self.limit = agent, min(limits, default=None)
        self.starts = DreamStarts(z, h, c)
        self.cfg = dataclasses.replace(
            dream, episodes=DREAMS, discount=1.0, no_event_penalty=0.0, disagreement_penalty=0.0
        )
        self.seed, self.usual = seed, dream.horizon * agent.action_repeat
        """of all dreams; length of a dream in the evolution, in steps of the environment"""

    def __call__(self, parameters: NDArray[np.float32], result: EvaluationResult) -> Outcomes:
        """Dream under a controller with parameters (N,), beside its real episodes ``result``."""
        agent, held = self.agent, self.agent.action_repeat
        steps = self._steps(result)
        cfg = dataclasses.replace(self.cfg, horizon=math.ceil(steps / held))
        assert agent.reward_model is not None, "it was evolved in a dream"
        parts = (agent.memories, agent.reward_model, self.starts, cfg)
        engine = DreamEngine(*parts, agent.controller.carry)
        make_act = partial(
            Controllers,
            cfg=agent.controller,
            z_dim=agent.z_dim,
            h_dim=agent.h_dim,
            stats=agent.input_stats,
        )
        found = engine.rollout(make_act, parameters[None], self.seed)
        lengths = np.minimum(found.lengths[0] * held, steps)
        return Outcomes(found.returns[0], lengths, found.terminated[0])

    def _steps(self, result: EvaluationResult) -> int:
        """Longest dream, in steps of the environment.

        It is the episodes' limit, or twice what is usual where that is far away. Episodes that
        reach the task's goal end there, and few dreams do: then as long as the real ones.
        """
        lengths = [episode.length for episode in result.episodes]
        if any(episode.lap_finished for episode in result.episodes):
            return max(1, round(float(np.mean(lengths))))
        usual = 2 * max(*lengths, self.usual)
        return usual if self.limit is None else min(self.limit, usual)


def _first_frames(env_id: str, seeds: Sequence[int]) -> tuple[NDArray[np.uint8], int | None]:
    """The first frames of episodes (B, H, W) or (B, H, W, C), and the time limit."""
    with contextlib.closing(envs.make(env_id)) as env:
        return np.stack([env.reset(seed=seed)[0] for seed in seeds]), time_limit(env)


def disbelief(dreamt: Outcomes, real: Outcomes) -> str | None:
    """Why whole dreams are not credible, as real episodes under the same controller show.

    They promise a larger return or last longer, by more than noise and by more than `MATERIAL`.
    """
    said = []
    if _larger(dreamt.returns, real.returns):
        said.append(f"the dream promises {told(dreamt.returns.mean())}, reality pays")
        said[-1] += f" {told(real.returns.mean())}: do not trust it"
    if _larger(dreamt.lengths.astype(np.float64), real.lengths.astype(np.float64)):
        said.append(f"dreams last {dreamt.lengths.mean():,.0f} steps, real episodes")
        said[-1] += f" {real.lengths.mean():,.0f}: M misses their ends"
    return "; ".join(said) or None


def _larger(dreamt: Floats, real: Floats) -> bool:
    """Whether the mean of dreams is clearly larger, by Welch's t-test and by size."""
    from scipy.special import stdtrit  # a second to import

    gap = float(dreamt.mean() - real.mean())
    if len(real) < 2 or gap <= MATERIAL * float(np.sqrt(np.square(real).mean())):
        return False
    parts = [values.var(ddof=1) / len(values) for values in (dreamt, real)]
    if not sum(parts):
        return True
    counts = [len(dreamt) - 1, len(real) - 1]
    freedom = sum(parts) ** 2 / sum(p**2 / n for p, n in zip(parts, counts, strict=True))
    return gap > float(stdtrit(freedom, CONFIDENCE)) * math.sqrt(sum(parts))


def curves(dreamt: Outcomes, real: Outcomes) -> Survival | None:
    """Survival of dreams and of real episodes; None where no episode ends by itself."""
    if not real.ended.any() and dreamt.ended.mean() < FEW:
        return None
    last = int(max(dreamt.lengths.max(), real.lengths.max()))
    times = np.unique(np.linspace(0, last, POINTS + 1).astype(np.int64))
    left = [survival(part.lengths, part.ended, times).tolist() for part in (dreamt, real)]
    return Survival(step=times.tolist(), dream=left[0], real=left[1])
