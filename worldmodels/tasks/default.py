"""What a few episodes show about an environment that nobody has described.

`measure` plays them under several kinds of random actions and keeps figures, which
`worldmodels.tasks.choices` turns into settings. All but the speed depends on the environment and
the seed alone.
"""

from __future__ import annotations

import base64
import io
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodels import envs
from worldmodels.envs.frames import Crop, FrameSpec, to_vision
from worldmodels.envs.pixels import drawer_of, four_channels
from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import TRAINING_SEED_LIMIT
from worldmodels.runs import derive_seed

STEPS, EPISODES = 1500, 30
"""Most steps and episodes that are played."""
PLAYED_OUT, SECONDS = 10_000, 20.0
"""Most steps and seconds of the one episode that is played to its end where there is no time limit
and no other episode has ended."""
MOST_STEPS = 12_000
"""Most steps where rewards are rare: whole episodes of random actions are added."""
RARE = 0.05
"""Fraction of steps that pay another reward than the commonest, below which rewards are rare."""
HELD_STEPS = 75
"""Most steps of an episode of one action; what is left is shared by the random behaviours."""
REPLAYED = 50
"""Steps that are played a second time, from the same seed."""
HOLDS = (1, 2, 3, 4)
"""Steps between two frames whose difference is measured."""
STICKY = (0.0, 0.5, 0.7, 0.9, 0.98)
"""Probabilities of keeping a choice of a Discrete space; 0 chooses anew in every step."""
SCALES = (0.25, 0.5, 1.0)
"""Standard deviations of AR(1) noise in a Box, in unit coordinates."""
RHO = 0.9
"""What is left of that noise one step later."""
SKIPS = ("frameskip", "frame_skip", "skip")
"""Arguments by which environments hold an action themselves."""


@dataclass(frozen=True)
class Reach:
    """How far one kind of actions came."""

    name: str
    """such as "a choice kept with 0.7" """
    kind: str
    """"uniform", "sticky", "noise" or "held" """
    value: float
    """probability of keeping the choice, deviation of the noise, or number of the action"""
    episodes: int
    length: float
    """steps for each episode that ended, which is their mean length where none was cut; at most the
    time limit"""
    variety: float
    """standard deviation of V's pixels over all frames, mean of the pixels, 0 to 255"""
    rewarded: float
    """fraction of steps with a better reward than the commonest"""
    mean_return: float


@dataclass(frozen=True)
class Frames:
    """What was seen."""

    shape: tuple[int, ...]
    kind: str
    """"colour" or "grey" """
    mean: float
    """brightness of V's pixels, 0 to 255"""
    std: float
    """its standard deviation, over pixels and frames"""
    black: float
    """fraction of frames that are all but black; so for the next two"""
    white: float
    plain: float
    """of frames of one colour"""
    same: bool
    """whether all frames are equal"""
    changed: float
    """fraction of pixels that a step changes, mean of all steps"""
    still: float
    """fraction of steps that change no pixel"""
    motion: tuple[float, ...]
    """largest change of one of V's pixels, 0 to 255, from a frame to the one `HOLDS` steps later:
    median over frames that change at all"""


@dataclass(frozen=True)
class Rewards:
    """What was paid."""

    commonest: float
    share: float
    """fraction of steps that pay it"""
    low: float
    high: float
    mean: float
    std: float
    at_ends: bool
    """whether only steps that terminate an episode pay another than the commonest reward"""
    same_returns: bool = False
    """whether all episodes that were not cut, two or more, have the same return"""

    @property
    def constant(self) -> bool:
        """Whether every step pays the same."""
        return self.share == 1.0


@dataclass(frozen=True)
class Ends:
    """How long episodes were, and why they ended."""

    limit: int | None
    """the environment's time limit, or the user's where that is shorter; None: there is none"""
    terminated: int
    """episodes that ended by themselves"""
    truncated: int
    """that the time limit ended"""
    cut: int
    """that were cut here, since there are other things to measure"""
    shortest: int
    """steps of the shortest episode that was not cut; 0 where all were"""
    longest: int
    """steps of the longest episode"""
    rate: float
    """terminated episodes per step"""
    natural: int | None = None
    """steps of a random episode that was played to its end, as no other had ended and there is no
    time limit; None where there was no need, or where it did not end"""

    @property
    def endless(self) -> bool:
        """Whether nothing ends an episode, as far as was seen."""
        ended = self.terminated + self.truncated > 0 or self.natural is not None
        return self.limit is None and not ended


@dataclass(frozen=True)
class Examination:
    """What a few episodes showed; JSON can hold it."""

    env_id: str
    seed: int
    steps: int
    """steps of the environment that this cost"""
    actions: ActionSpec
    skip: int | None
    """steps for which the environment holds each action by itself, where it says so"""
    frames: Frames
    rewards: Rewards
    ends: Ends
    reached: tuple[Reach, ...]
    repeatable: bool
    """whether the same seed and actions gave the same frames and rewards"""
    same_resets: bool
    """whether all seeds give the same first frame"""
    steps_per_second: float
    """for the eye only: no setting follows from it"""
    picture: str = field(repr=False)
    """PNG in base64: what V would see at four moments of an episode, side by side"""
    stacked: bool = False
    """whether four channels, which are taken for RGBA, are four grey frames, the newest last"""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `worldmodels.runs.to_jsonable`."""
        frames, actions = dict(record["frames"]), dict(record["actions"])
        for name in ("shape", "motion"):
            frames[name] = tuple(frames[name])
        for name in ("low", "high"):
            actions[name] = tuple(actions[name])
        parts = {
            "frames": Frames(**frames),
            "actions": ActionSpec(**actions),
            "rewards": Rewards(**record["rewards"]),
            "ends": Ends(**record["ends"]),
            "reached": tuple(Reach(**reach) for reach in record["reached"]),
        }
        return cls(**{**record, **parts})

    @property
    def random(self) -> tuple[Reach, ...]:
        """What random actions reached; not those that hold one action."""
        return tuple(reach for reach in self.reached if reach.kind != "held")

    @property
    def png(self) -> bytes:
        """The picture."""
        return base64.b64decode(self.picture)


@dataclass
class _Episode:
    """One episode as it is played."""

    views: list[NDArray[np.uint8]]
    """what V would see (S, S), grey"""
    rewards: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    why: str = "cut"


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
        crop: pixels of these that are cut off at the top, bottom, left and right.

    Raises:
        UserError: it cannot be made, or breaks a promise in one of the episodes.
    """
    env = envs.make(env_id)
    try:
        return _Measure(env, env_id, seed, max_steps, FrameSpec(rows=rows, crop=crop)).result()
    finally:
        env.close()


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
        self.first: list[NDArray[np.uint8]] = []
        self.episodes: list[_Episode] = []
        self.record: list[tuple[Any, bytes, float]] = []

    def result(self) -> Examination:
        """Play, and sum up."""
        reached = [self._reach(*behaviour) for behaviour in behaviours(self.actions)]
        self._add_episodes([one for one in reached if one[0][1] != "held"])
        ends, repeatable = self._ends(), self._repeats()  # both play on
        viewed = sum(len(episode.rewards) for episode in self.episodes)
        skips = self.env.spec.kwargs if self.env.spec is not None else {}
        skip = next((skips[name] for name in SKIPS if isinstance(skips.get(name), int)), None)
        return Examination(
            env_id=self.env_id,
            seed=self.seed,
            repeatable=repeatable,
            stacked=self._stacked(),
            steps=self.steps,
            actions=self.actions,
            skip=skip,
            frames=self._frames(),
            rewards=self._rewards(),
            ends=ends,
            reached=tuple(self._finished(reach, eps) for reach, eps in reached),
            same_resets=len(self.first) > 1
            and all(np.array_equal(self.first[0], frame) for frame in self.first),
            steps_per_second=viewed / max(self.seconds, 1e-9),
            picture=_picture(self.colours),
        )

    def _reach(
        self, name: str, kind: str, value: float
    ) -> tuple[tuple[str, str, float], list[_Episode]]:
        """Play the episodes of one behaviour, which begin at the same seeds as all others'."""
        known = behaviours(self.actions)
        held = sum(other == "held" for _, other, _ in known)
        number, budget = 1, HELD_STEPS
        if kind != "held":
            number = (EPISODES - held) // (len(known) - held)
            budget = (STEPS - REPLAYED - held * HELD_STEPS) // (len(known) - held)
        played: list[_Episode] = []
        for index in range(number):
            left = budget - sum(len(episode.rewards) for episode in played)
            if left <= 0:
                break
            played.append(self._play(self.seeds[index], kind, value, left))
        self.episodes += played
        return (name, kind, value), played

    def _add_episodes(
        self, random: Sequence[tuple[tuple[str, str, float], list[_Episode]]]
    ) -> None:
        """Play whole episodes of each behaviour in turn while rewards are rare."""
        for _ in range(EPISODES):
            for (_, kind, value), played in random:
                if not self._rare() or self.steps >= MOST_STEPS:
                    return
                seed = self.seeds[len(played) % EPISODES]
                played.append(self._play(seed, kind, value, MOST_STEPS - self.steps))
                self.episodes.append(played[-1])

    def _rare(self) -> bool:
        """Whether rewards are rare so far; not where all steps pay the same, but for 0."""
        paid = np.concatenate([episode.rewards for episode in self.episodes])
        values, counts = np.unique(paid, return_counts=True)
        if len(values) == 1:
            return bool(values[0] == 0)
        return bool(1 - counts.max() / len(paid) < RARE)

    def _play(self, seed: int, kind: str, value: float, most: int) -> _Episode:
        """One episode of at most so many steps."""
        actions = _actions(self.actions, kind, value, derive_seed(seed, "examination", kind))
        began = time.perf_counter()
        frame, _ = self.env.reset(seed=seed)
        first = not self.episodes and not self.record
        episode = _Episode([self._view(frame, first)])
        self.first.append(frame)
        while len(episode.rewards) < most and episode.why == "cut":
            action = next(actions)
            before = frame
            frame, reward, terminated, truncated, _ = self.env.step(action)
            self.steps += 1
            episode.rewards.append(float(reward))
            episode.changed.append(_changed(before, frame))
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
        """The length of one more random episode (None: it did not end), and the steps it took."""
        seed, began = self.seeds[0], time.monotonic()
        actions = _actions(self.actions, "uniform", 0.0, derive_seed(self.seed, "played out"))
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

    def _stacked(self) -> bool:
        """See `Examination.stacked`."""
        raw: Any = four_channels(self.env)
        if raw is None:
            return False
        actions = _actions(self.actions, "uniform", 0.0, derive_seed(self.seed, "stacked"))
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
        if not np.array_equal(frame, self.first[0]):
            return False
        for action, seen, paid in self.record:
            frame, reward, *_ = self.env.step(action)
            self.steps += 1
            if frame.tobytes() != seen or float(reward) != paid:
                return False
        return True

    def _frames(self) -> Frames:
        views = np.stack([view for episode in self.episodes for view in episode.views])
        low, high = views.min(axis=(1, 2)), views.max(axis=(1, 2))
        changed = np.concatenate([episode.changed for episode in self.episodes])
        shape = self.env.observation_space.shape
        assert shape is not None
        return Frames(
            shape=shape,
            kind="colour" if len(shape) == 3 and shape[2] == 3 else "grey",
            mean=float(views.mean()),
            std=float(views.std()),
            black=float((high < 3).mean()),
            white=float((low > 252).mean()),
            plain=float((high == low).mean()),
            same=not changed.any() and all(np.array_equal(self.first[0], f) for f in self.first),
            changed=float(changed.mean()),
            still=float((changed == 0).mean()),
            motion=tuple(self._motion(steps) for steps in HOLDS),
        )

    def _motion(self, steps: int) -> float:
        """See `Frames.motion`."""
        found = []
        for episode in self.episodes:
            views = np.stack(episode.views).astype(np.int16)
            if len(views) > steps:
                found.append(np.abs(views[steps:] - views[:-steps]).max(axis=(1, 2)))
        largest = np.concatenate(found) if found else np.zeros(0)
        return float(np.median(largest[largest > 0])) if (largest > 0).any() else 0.0

    def _rewards(self) -> Rewards:
        paid = np.concatenate([episode.rewards for episode in self.episodes])
        values, counts = np.unique(paid, return_counts=True)
        commonest = float(values[counts.argmax()])
        last = np.concatenate(
            [
                np.arange(len(episode.rewards)) == len(episode.rewards) - 1
                if episode.why == "terminated"
                else np.zeros(len(episode.rewards), np.bool_)
                for episode in self.episodes
            ]
        )
        others = paid != commonest
        returns = {sum(episode.rewards) for episode in self.episodes if episode.why != "cut"}
        whole = sum(episode.why != "cut" for episode in self.episodes)
        return Rewards(
            commonest=commonest,
            share=float(counts.max() / len(paid)),
            low=float(paid.min()),
            high=float(paid.max()),
            mean=float(paid.mean()),
            std=float(paid.std()),
            at_ends=bool(others.any() and last[others].all()),
            same_returns=whole > 1 and len(returns) == 1,
        )

    def _ends(self) -> Ends:
        why = [episode.why for episode in self.episodes]
        lengths = [len(episode.rewards) for episode in self.episodes]
        whole = [n for n, end in zip(lengths, why, strict=True) if end != "cut"]
        natural, tried = None, 0
        if self.limit is None and not whole:
            natural, tried = self._play_out()
        return Ends(
            limit=self.limit,
            terminated=why.count("terminated"),
            truncated=why.count("truncated"),
            cut=why.count("cut"),
            shortest=min(whole, default=0),
            longest=max(*lengths, tried),
            rate=why.count("terminated") / sum(lengths),
            natural=natural,
        )

    def _finished(self, behaviour: tuple[str, str, float], episodes: Sequence[_Episode]) -> Reach:
        """The figures of one behaviour, once the commonest reward is known."""
        paid = np.concatenate([episode.rewards for episode in episodes])
        views = np.stack([view for episode in episodes for view in episode.views])
        length = len(paid) / max(1, sum(episode.why != "cut" for episode in episodes))
        return Reach(
            *behaviour,
            episodes=len(episodes),
            length=length if self.limit is None else min(length, float(self.limit)),
            variety=float(views.std(axis=0).mean()),
            rewarded=float((paid > self._rewards().commonest).mean()),
            mean_return=float(paid.sum() / len(episodes)),
        )


def behaviours(spec: ActionSpec) -> list[tuple[str, str, float]]:
    """Name, kind and value of all that is tried: random actions, then at most three held ones."""
    found = [("uniform", "uniform", 0.0)]
    if spec.kind == "discrete":
        found += [(f"a choice kept with {rate:g}", "sticky", rate) for rate in STICKY[1:]]
        held = sorted({0, spec.dim // 2, spec.dim - 1})
        return found + [(f"choice {spec.start + n} held", "held", float(n)) for n in held]
    found += [(f"AR(1) noise of {scale:g}", "noise", scale) for scale in SCALES]
    names = {-1.0: "lowest", 0.0: "middle", 1.0: "highest"}
    return found + [(f"the {name} action held", "held", unit) for unit, name in names.items()]


def _actions(spec: ActionSpec, kind: str, value: float, seed: int) -> Iterator[Any]:
    """Actions for the environment, without end."""
    rng, low, high = np.random.default_rng(seed), np.array(spec.low), np.array(spec.high)
    if spec.kind == "discrete":
        choice = int(value) if kind == "held" else int(rng.integers(spec.dim))
        while True:
            yield spec.start + choice
            if kind == "uniform" or (kind == "sticky" and rng.random() >= value):
                choice = int(rng.integers(spec.dim))
    unit = value * rng.standard_normal(spec.dim)
    while True:
        if kind == "uniform":
            unit = rng.uniform(-1, 1, spec.dim)
        elif kind == "held":
            unit = np.full(spec.dim, value)
        numbers = low + (np.clip(unit, -1, 1) + 1) * (high - low) / 2
        yield spec.to_env(numbers.astype(np.float32))
        unit = RHO * unit + np.sqrt(1 - RHO**2) * value * rng.standard_normal(spec.dim)


def _changed(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Fraction of pixels (H, W) or (H, W, C) that differ."""
    differs = before != after
    return float((differs.any(axis=-1) if differs.ndim == 3 else differs).mean())


def _picture(views: Sequence[NDArray[np.uint8]]) -> str:
    """Four of V's frames (S, S, 3) side by side, as a PNG in base64."""
    from PIL import Image

    chosen = [views[index] for index in np.linspace(0, len(views) - 1, 4).astype(int)]
    file = io.BytesIO()
    Image.fromarray(np.concatenate(chosen, axis=1)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
