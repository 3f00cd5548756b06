"""From what a few episodes showed to what is to be said about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from worldmodels.tasks.examination import SHORTEST, SOME_REWARDS, Examination

Level: TypeAlias = Literal["ok", "note", "warning", "refused"]


@dataclass(frozen=True)
class Finding:
    """Something to know about the environment."""

    level: Level
    text: str
    """what was seen, and what helps"""


def findings(found: Examination) -> tuple[Finding, ...]:
    """What is to be said, the worst first; "ok" alone where there is nothing."""
    order: dict[Level, int] = {"refused": 0, "warning": 1, "note": 2, "ok": 3}
    said = [*_of_frames(found), *_of_channels(found), *_of_ends(found)]
    said += [*_of_rewards(found), *_of_seeds(found)]
    if not any(one.level in ("refused", "warning") for one in said):
        said.insert(0, Finding("ok", "it can be learnt with the settings below"))
        order["ok"] = 0
    return tuple(sorted(said, key=lambda one: order[one.level]))


def _of_frames(found: Examination) -> Iterator[Finding]:
    frames = found.frames
    for name, share in (("black", frames.black), ("white", frames.white)):
        if share == 1.0:
            yield Finding(
                "refused",
                f"all frames are {name}: there is nothing to see. It may draw nothing where there "
                "is no display: pass it what makes it draw (render_mode='rgb_array', offscreen), "
                "or wrap it in gymnasium.wrappers.AddRenderObservation",
            )
            return
        if share >= 0.005:
            yield Finding("note", f"{share:.0%} of the frames are {name}")
    if frames.same:
        yield Finding(
            "refused",
            "all frames are the same: no action shows. Wrap it in "
            "gymnasium.wrappers.AddRenderObservation, or return a new frame in each step",
        )
    elif frames.std < 1:
        yield Finding(
            "warning",
            f"brightness deviates by {frames.std:.2f} of 255 only: V may see nothing. Crop the "
            "frame to what matters (--crop), or stretch it with "
            "gymnasium.wrappers.TransformObservation",
        )
    elif frames.mean > 245 or frames.mean < 10:
        side = "white" if frames.mean > 245 else "black"
        yield Finding("note", f"the picture is nearly {side} ({frames.mean:.0f} of 255 on average)")
    if frames.plain == 1.0 and not frames.same:
        yield Finding("note", "every frame is of one colour")
    if frames.still > 0.5 and not frames.same:
        yield Finding("note", f"{frames.still:.0%} of the steps change no pixel")
    if len(frames.shape) > 1 and min(frames.shape[:2]) > 256:
        size = f"{frames.shape[0]}x{frames.shape[1]}"
        yield Finding("note", f"frames of {size} cost time; V sees 64x64: let it draw smaller ones")


def _of_channels(found: Examination) -> Iterator[Finding]:
    if found.stacked:
        yield Finding(
            "warning",
            "the four channels are four grey frames, not RGBA: V sees the oldest three as colours. "
            "gymnasium.wrappers.TransformObservation can keep the newest, obs[..., -1:]",
        )


def _of_ends(found: Examination) -> Iterator[Finding]:
    ends = found.ends
    if ends.endless:
        yield Finding(
            "refused",
            f"no episode ended within {ends.longest} steps, and there is no time limit: give "
            "--max-steps, or register it with max_episode_steps",
        )
    elif ends.limit is None and ends.truncated:
        yield Finding("note", f"it registers no time limit, but truncates at {ends.longest} steps")
    elif ends.limit is None:
        yield Finding(
            "note",
            "there is no time limit, but episodes end by themselves (longest seen: "
            f"{ends.longest}); if a good agent's do not, give --max-steps",
        )
    if 0 < ends.longest <= 2:
        yield Finding(
            "warning",
            f"no episode is longer than {ends.longest} step{'s' * (ends.longest > 1)}: M has no "
            "past to remember, and a dream is over at once",
        )
    elif 0 < ends.longest < SHORTEST:
        yield Finding("note", f"no episode is longer than {ends.longest} steps")


def _of_rewards(found: Examination) -> Iterator[Finding]:
    pay, ends = found.rewards, found.ends
    fixed = ends.terminated == 0 or ends.shortest == ends.longest
    if pay.constant and pay.commonest == 0:
        yield Finding(
            "warning",
            f"no reward came in {found.steps} steps: nothing says what is good. Explore for longer "
            "(--experience.explore-episodes, --experience.explore-rho), or pay for steps on the "
            "way with gymnasium.wrappers.TransformReward",
        )
    elif pay.same_returns or (pay.constant and fixed):
        same = "all whole episodes have the same return"
        if pay.constant:
            alike = "all episodes are equally long"
            if not ends.shortest:
                alike = f"no episode ended in {found.steps} steps"
            same = f"every step pays {pay.commonest:g} and {alike}"
        yield Finding(
            "warning",
            f"{same}: nothing says which policy is better. If other rewards or early ends are "
            "possible, explore for longer (--experience.explore-episodes, "
            "--experience.explore-rho)",
        )
    elif pay.constant:
        what = "how long the episode lasts" if pay.commonest > 0 else "how soon it ends"
        yield Finding("note", f"every step pays {pay.commonest:g}: the return is {what}")
    elif found.survival:
        yield Finding(
            "note",
            f"all steps pay {pay.commonest:g} but some last ones: the return is how long the "
            "episode lasts",
        )
    elif 1 - pay.share < SOME_REWARDS:
        yield Finding("note", f"rewards are rare: {1 - pay.share:.1%} of the steps")
    if pay.low < 0 and pay.high <= 0:
        yield Finding(
            "note",
            f"no reward is above 0 ({pay.low:g} to {pay.high:g}): an early end looks good where M "
            "dreams one",
        )
    if max(abs(pay.low), abs(pay.high)) > 1e6:
        largest = max(abs(pay.low), abs(pay.high))
        yield Finding("note", f"rewards reach {largest:.3g} in size; M scales them")


def _of_seeds(found: Examination) -> Iterator[Finding]:
    if not found.repeatable:
        yield Finding(
            "warning",
            "the same seed and actions gave other frames or rewards: nothing can be reproduced. "
            "Draw all that is random from self.np_random, after super().reset(seed=seed)",
        )
    if found.same_resets and not found.frames.same:
        yield Finding("note", "all episodes begin with the same frame, whatever the seed")
