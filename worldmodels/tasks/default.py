"""What a few episodes show about an environment that nobody has described.

`measure` plays them under several kinds of random actions and keeps figures (`plays`), which
`worldmodels.tasks.choices` turns into settings. All but the speed depends on the environment and
the seed alone.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodels import envs, executors
from worldmodels.envs.frames import Crop, FrameSpec, to_vision
from worldmodels.envs.pixels import drawer_of, four_channels
from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import TRAINING_SEED_LIMIT
from worldmodels.runs import derive_seed
from worldmodels.tasks.behaviours import actions_of, behaviours
from worldmodels.tasks.examination import Examination
from worldmodels.tasks.plays import (
    Played,
    changed_by,
    ends_of,
    frames_of,
    picture_of,
    reach_of,
    rewards_of,
    whole_of,
)
from worldmodels.tasks.task import task_of

STEPS, EPISODES = 1500, 30
"""Most steps and episodes that are played."""
PLAYED_OUT, SECONDS = 10_000, 20.0
"""Most steps and seconds of the one episode that is played to its end where there is no time limit
and no other episode has ended."""
MOST_STEPS = 12_000
"""Most steps where rewards are rare, or where no episode has ended by itself: whole episodes of
random actions are added."""
WHOLE_EPISODES = 3
"""Whole episodes after which it is believed that none ends by itself."""
RARE = 0.05
"""Fraction of steps that pay another reward than the commonest, below which rewards are rare."""
HELD_STEPS = 75
"""Most steps of an episode of one action; what is left is shared by the random behaviours."""
REPLAYED = 50
"""Steps that are played a second time, from the same seed."""
SKIPS = ("frameskip", "frame_skip", "skip")
"""Arguments by which environments hold an action themselves."""


def measure(
    env_id: str,
    seed: int = 0,
    max_steps: int | None = None,
    rows: int | None = None,
    crop: Crop | None = None,
) -> Examination:
    """Play a few episodes of an environment and say what they showed.

    Args:
        env_id: as `worldmodels.envs.make` takes it.
        seed: chooses the training seeds that are played, and the actions.
        max_steps: longest episode; None leaves it to the environment.
        rows: rows of the frames that V sees, from the top; None for all.
        crop: pixels of these that are cropped at the top, bottom, left and right.

    Raises:
        UserError: it cannot be made, or breaks a promise in one of the episodes.
    """
    env = envs.make(env_id)
    try:
        return _Measure(env, env_id, seed, max_steps, FrameSpec(rows=rows, crop=crop)).result()
    finally:
        env.close()


def measure_in_worker(env_id: str, **options: Any) -> Examination:
    """`measure` in a worker, which ends with this process, and with it what it has started."""
    with executors.make("processes", 1) as worker:
        return next(worker.map(functools.partial(measure, **options), [env_id]))[1]


class _Measure:
    """The episodes of one examination."""

    def __init__(
        self, env: gym.Env[Any, Any], env_id: str, seed: int, limit: int | None, spec: FrameSpec
    ) -> None:
        self.env, self.env_id, self.seed, self.spec = env, env_id, seed, spec
        self.actions = ActionSpec.from_space(env.action_space)
        limits = [steps for steps in (limit, envs.time_limit(env)) if steps is not None]
        self.limit = min(limits, default=None)
        rng = np.random.default_rng(derive_seed(seed, "examination"))
        self.seeds: list[int] = rng.choice(TRAINING_SEED_LIMIT, EPISODES, replace=False).tolist()
        self.steps = 0
        self.seconds = 0.0
        self.colours: list[NDArray[np.uint8]] = []
        self.first: dict[int, NDArray[np.uint8]] = {}
        self.episodes: list[Played] = []
        self.record: list[tuple[Any, bytes, float]] = []

    def result(self) -> Examination:
        """Play, and sum up."""
        reached = [self._reach(*behaviour) for behaviour in behaviours(self.actions)]
        natural, tried = self._play_out()
        if self.limit is not None or natural is not None or whole_of(self.episodes):
            self._add_episodes([one for one in reached if one[0][1] != "held"])
        ends = ends_of(self.episodes, self.limit, natural, tried)
        repeatable = self._repeats()  # plays on
        rewards, shape = rewards_of(self.episodes), self.env.observation_space.shape
        assert shape is not None
        if len(self.first) == 1:  # episodes are so long that each behaviour had one
            self.first[self.seeds[1]] = self.env.reset(seed=self.seeds[1])[0]
        skips = self.env.spec.kwargs if self.env.spec is not None else {}
        skip = next((skips[name] for name in SKIPS if isinstance(skips.get(name), int)), None)
        return Examination(
            env_id=self.env_id,
            seed=self.seed,
            repeatable=repeatable,
            stacked=self._stacked(),
            symmetric=task_of(self.env).flips(self.spec),
            steps=self.steps,
            actions=self.actions,
            skip=skip,
            frames=frames_of(self.episodes, shape, self._same_resets()),
            rewards=rewards,
            ends=ends,
            reached=tuple(
                reach_of(behaviour, played, self.limit, rewards.commonest)
                for behaviour, played in reached
            ),
            same_resets=self._same_resets(),
            steps_per_second=self._viewed() / max(self.seconds, 1e-9),
            picture=picture_of(self.colours),
        )

    def _reach(
        self, name: str, kind: str, value: float
    ) -> tuple[tuple[str, str, float], list[Played]]:
        """Play the episodes of one behaviour, which begin at the same seeds as all others'."""
        known = behaviours(self.actions)
        held = sum(other == "held" for _, other, _ in known)
        number, budget = 1, HELD_STEPS
        if kind != "held":
            number = (EPISODES - held) // (len(known) - held)
            budget = (STEPS - REPLAYED - held * HELD_STEPS) // (len(known) - held)
        played: list[Played] = []
        for index in range(number):
            left = budget - sum(len(episode.rewards) for episode in played)
            if left <= 0:
                break
            played.append(self._play(self.seeds[index], kind, value, left))
        self.episodes += played
        return (name, kind, value), played

    def _add_episodes(self, random: Sequence[tuple[tuple[str, str, float], list[Played]]]) -> None:
        """Play whole episodes of each behaviour in turn while too little was seen."""
        for _ in range(EPISODES):
            unseen = self._ends_unseen()  # each behaviour shows whether its episodes end
            for (_, kind, value), played in random:
                left = MOST_STEPS - self._viewed()
                if left <= 0 or not (unseen or self._rare()):
                    return
                seed = self.seeds[len(played) % EPISODES]
                played.append(self._play(seed, kind, value, left))
                self.episodes.append(played[-1])

    def _rare(self) -> bool:
        """Whether rewards are rare so far; not where all steps pay the same, but for 0."""
        paid = np.concatenate([episode.rewards for episode in self.episodes])
        values, counts = np.unique(paid, return_counts=True)
        if len(values) == 1:
            return bool(values[0] == 0)
        return bool(1 - counts.max() / len(paid) < RARE)

    def _viewed(self) -> int:
        """Steps of the episodes so far."""
        return sum(len(episode.rewards) for episode in self.episodes)

    def _ends_unseen(self) -> bool:
        """Whether whole episodes are too few to know how episodes end.

        Where every step pays the same, how long they last is all that a policy can be told by: as
        many as may be are played until two differ.
        """
        whole = whole_of(self.episodes)
        if len({reward for episode in self.episodes for reward in episode.rewards}) == 1:
            alike = len({len(episode.rewards) for episode in whole}) < 2
            return alike and len(whole) < EPISODES
        return not any(e.why == "terminated" for e in whole) and len(whole) < WHOLE_EPISODES

    def _play(self, seed: int, kind: str, value: float, most: int) -> Played:
        """One episode of at most so many steps."""
        actions = actions_of(self.actions, kind, value, derive_seed(seed, "examination", kind))
        began = time.perf_counter()
        frame, _ = self.env.reset(seed=seed)
        first = not self.episodes and not self.record
        episode = Played([self._view(frame, first)])
        self.first.setdefault(seed, frame)
        while len(episode.rewards) < most and episode.why == "cut":
            action = next(actions)
            before = frame
            frame, reward, terminated, truncated, _ = self.env.step(action)
            self.steps += 1
            episode.rewards.append(float(reward))
            episode.changed.append(changed_by(before, frame))
            episode.views.append(self._view(frame, first))
            if first and len(self.record) < REPLAYED:
                self.record.append((action, frame.tobytes(), float(reward)))
            if truncated or len(episode.rewards) == self.limit:
                episode.why = "truncated"  # ALE's own limit says that the game is over
            elif terminated:
                episode.why = "terminated"
        self.seconds += time.perf_counter() - began
        return episode

    def _play_out(self) -> tuple[int | None, int]:
        """The length of one more random episode (None: it did not end), and the steps it took.

        Played where no other has ended and there is no time limit.
        """
        if self.limit is not None or whole_of(self.episodes):
            return None, 0
        seed, began = self.seeds[0], time.monotonic()
        actions = actions_of(self.actions, "uniform", 0.0, derive_seed(self.seed, "played out"))
        self.env.reset(seed=seed)
        drawer = drawer_of(self.env)
        try:
            if drawer is not None:  # nobody looks
                drawer.draws_observations = False
            for step, action in enumerate(itertools.islice(actions, PLAYED_OUT), 1):
                _, _, terminated, truncated, _ = self.env.step(action)
                self.steps += 1
                if terminated or truncated:
                    return step, step
                if time.monotonic() - began > SECONDS:
                    break
        finally:
            if drawer is not None:
                drawer.draws_observations = True
        return None, step

    def _view(self, frame: NDArray[np.uint8], keep: bool) -> NDArray[np.uint8]:
        """What V would see, as grey values."""
        view = to_vision(frame, self.spec)
        if keep:
            self.colours.append(view)
        return np.asarray(view.mean(axis=-1).round(), np.uint8)

    def _same_resets(self) -> bool:
        """See `Examination.same_resets`."""
        first, *others = self.first.values()
        return all(np.array_equal(first, frame) for frame in others)

    def _stacked(self) -> bool:
        """See `Examination.stacked`."""
        raw: Any = four_channels(self.env)
        if raw is None:
            return False
        actions = actions_of(self.actions, "uniform", 0.0, derive_seed(self.seed, "stacked"))
        before, shifted, moved = raw.reset(seed=self.seeds[0])[0], True, False
        for action in itertools.islice(actions, REPLAYED):
            after, _, terminated, truncated, _ = raw.step(action)
            self.steps += 1
            shifted &= np.array_equal(after[..., :3], before[..., 1:])
            moved |= not np.array_equal(after, before)
            before = after
            if terminated or truncated:
                break
        return bool(shifted and moved)

    def _repeats(self) -> bool:
        """Play the first episode's beginning once more."""
        frame, _ = self.env.reset(seed=self.seeds[0])
        if not np.array_equal(frame, self.first[self.seeds[0]]):
            return False
        for action, seen, paid in self.record:
            frame, reward, *_ = self.env.step(action)
            self.steps += 1
            if frame.tobytes() != seen or float(reward) != paid:
                return False
        return True
