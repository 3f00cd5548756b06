"""What was seen of the episodes that `worldmodels.tasks.default` played, in figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worldmodels.tasks.examination import HOLDS, Ends, Frames, Reach, Rewards


@dataclass
class Played:
    """One episode as it is played."""

    views: list[NDArray[np.uint8]]
    """what V would see (S, S), grey"""
    rewards: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    why: str = "cut"


def frames_of(episodes: Sequence[Played], shape: tuple[int, ...], same_resets: bool) -> Frames:
    """What V would see of all frames; ``shape`` is that of the environment's own."""
    views = np.stack([view for episode in episodes for view in episode.views])
    low, high = views.min(axis=(1, 2)), views.max(axis=(1, 2))
    changed = np.concatenate([episode.changed for episode in episodes])
    return Frames(
        shape=shape,
        kind="colour" if len(shape) == 3 and shape[2] == 3 else "grey",
        mean=float(views.mean()),
        std=float(views.std()),
        black=float((high < 3).mean()),
        white=float((low > 252).mean()),
        plain=float((high == low).mean()),
        same=not changed.any() and same_resets,
        changed=float(changed.mean()),
        still=float((changed == 0).mean()),
        motion=tuple(_motion(episodes, steps) for steps in HOLDS),
    )


def _motion(episodes: Sequence[Played], steps: int) -> float:
    """See `Frames.motion`."""
    found = []
    for episode in episodes:
        views = np.stack(episode.views).astype(np.int16)
        if len(views) > steps:
            found.append(np.abs(views[steps:] - views[:-steps]).max(axis=(1, 2)))
    largest = np.concatenate(found) if found else np.zeros(0)
    return float(np.median(largest[largest > 0])) if (largest > 0).any() else 0.0


def rewards_of(episodes: Sequence[Played]) -> Rewards:
    """What all steps paid."""
    paid = np.concatenate([episode.rewards for episode in episodes])
    values, counts = np.unique(paid, return_counts=True)
    commonest = float(values[counts.argmax()])
    last = np.concatenate(
        [
            np.arange(len(episode.rewards)) == len(episode.rewards) - 1
            if episode.why == "terminated"
            else np.zeros(len(episode.rewards), np.bool_)
            for episode in episodes
        ]
    )
    others = paid != commonest
    whole = whole_of(episodes)
    returns = {sum(episode.rewards) for episode in whole}
    return Rewards(
        commonest=commonest,
        share=float(counts.max() / len(paid)),
        low=float(paid.min()),
        high=float(paid.max()),
        mean=float(paid.mean()),
        std=float(paid.std()),
        at_ends=bool(others.any() and last[others].all() and not last.all()),
        same_returns=len(whole) > 1 and len(returns) == 1,
    )


def ends_of(episodes: Sequence[Played], limit: int | None, natural: int | None, tried: int) -> Ends:
    """How the episodes ended.

    ``natural`` and ``tried`` are the length of the one that was played out (None: it did not end)
    and the steps that it took.
    """
    why = [episode.why for episode in episodes]
    lengths = [len(episode.rewards) for episode in episodes]
    whole = [n for n, end in zip(lengths, why, strict=True) if end != "cut"]
    return Ends(
        limit=limit,
        terminated=why.count("terminated"),
        truncated=why.count("truncated"),
        cut=why.count("cut"),
        shortest=min(whole, default=0),
        longest=max(*lengths, tried),
        rate=why.count("terminated") / sum(lengths),
        natural=natural,
    )


def whole_of(episodes: Sequence[Played]) -> list[Played]:
    """The episodes that were not cut."""
    return [episode for episode in episodes if episode.why != "cut"]


def reach_of(
    behaviour: tuple[str, str, float],
    episodes: Sequence[Played],
    limit: int | None,
    commonest: float,
) -> Reach:
    """How far one behaviour came, where the ``commonest`` reward is that of all steps."""
    paid = np.concatenate([episode.rewards for episode in episodes])
    views = np.stack([view for episode in episodes for view in episode.views])
    length = len(paid) / max(1, sum(episode.why != "cut" for episode in episodes))
    return Reach(
        *behaviour,
        episodes=len(episodes),
        length=length if limit is None else min(length, float(limit)),
        variety=float(views.std(axis=0).mean()),
        rewarded=float((paid > commonest).mean()),
        mean_return=float(paid.sum() / len(episodes)),
    )


def changed_by(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Fraction of pixels (H, W) or (H, W, C) that differ."""
    differs = before != after
    return float((differs.any(axis=-1) if differs.ndim == 3 else differs).mean())


def picture_of(views: Sequence[NDArray[np.uint8]]) -> str:
    """Four of V's frames (S, S, 3) side by side, as a PNG in base64."""
    from PIL import Image

    chosen = [views[index] for index in np.linspace(0, len(views) - 1, 4).astype(int)]
    file = io.BytesIO()
    Image.fromarray(np.concatenate(chosen, axis=1)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
