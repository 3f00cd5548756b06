"""What M's losses weigh, how long M is trained, and which parts of the recipe make sense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from worldmodels.tasks.choices.choice import Choice
from worldmodels.tasks.examination import SOME_REWARDS, Examination

RARE_REWARD = 0.01
"""Fraction of steps with a reward below which it weighs five times as much, and twice below
`SOME_REWARDS`."""
GOAL_REWARD = 100.0
"""The reward's weight where only a goal pays: with 10 the frames outweigh the one step that pays,
and M learns nothing of what it saw long before (area under the ROC curve 0.54, with 100 0.97)."""
LONG_TRAINING, FEW_STEPS = 12_000, 6000
"""Gradient steps of M from scratch where rewards come all the time, and where there are only few
frames, to which each iteration adds."""
LAST_MEMORY_STEPS = 20_000
"""Gradient steps of the last M of the preset "full" where only rare ends decide."""
RESIDUAL: dict[str, Any] = {
    "gradient": "reinforce",
    "network.noise": 0.5,
    "network.residual": 2.0,
    "batch_size": 512,
    "steps": 3000,
    "actors": 1,
}
"""Training of a residual that tries other choices."""


def losses(found: Examination) -> Iterator[Choice]:
    """What M's losses weigh.

    Ends weigh 1, however rare they are: with more M knows those of its training by heart, misses
    others, and predicts frames worse (TakeCover, HealthGathering; the same in CartPole and Memory).
    """
    pay = found.rewards
    yield Choice("dream.termination", "sampled", "a dream ends with M's probability, as in reality")
    if pay.constant and pay.commonest and found.ends.terminated:
        why = f"every step pays {pay.commonest:g}: it is known, not learnt"
        yield Choice("memory.reward", "raw", why)
        yield Choice("memory_training.reward_weight", 0.0, why)
    elif found.survival:
        why = f"all steps pay {pay.commonest:g} but some last ones: how long it lasts decides"
        yield Choice("memory_training.reward_weight", 0.0, why)
    else:
        others = 1 - pay.share
        weight = 10.0 if others < RARE_REWARD else 4.0 if others < SOME_REWARDS else 2.0
        why = f"{others:.1%} of steps pay something else"
        if found.goal:
            weight, why = GOAL_REWARD, "only a goal pays: all that M may have to remember is for it"
        yield Choice("memory_training.reward_weight", weight, why)
        if pay.varied:
            yield from _own_inputs("rewards come all the time: C would exploit M's errors")
            yield from _long_training(found.dense)
        elif found.goal:
            yield from _own_inputs("a goal is far off: dreams must not dissolve before it")
            why = "what is dreamt before a goal must decide there: predictions are of what happened"
            yield Choice("memory_training.own_inputs_from", "posterior", why)


def _own_inputs(because: str) -> Iterator[Choice]:
    """An M that learns from its own predictions."""
    why = f"{because}, so M learns to correct its own errors"
    yield Choice("memory_training.own_inputs", 0.5, why)
    yield Choice("memory_training.input_noise", 2.0, why)


def _long_training(few: bool) -> Iterator[Choice]:
    """How long it is trained where rewards come all the time, or where its frames are few."""
    why = "every step's reward counts: M is trained for long"
    if few:
        why = "frames are few, and each iteration fine-tunes M"
    yield Choice("memory_training.steps", FEW_STEPS if few else LONG_TRAINING, why)
    why = "M is fine-tuned, since retrained from scratch it is worse"
    yield Choice("from_scratch.iterations", 0, why)


def recipe(found: Examination, horizon: int, many: bool) -> Iterator[Choice]:
    """Which parts of the recipe make sense.

    ``many`` where many episodes are collected, since only rare ends decide; ``horizon`` is the
    length of C's dreams in decisions.
    """
    if many:
        why = f"only ends decide, of {found.ends.rate:.1%} of steps: M learns them for long"
        yield Choice("iterations", 3, why)
        yield Choice("from_scratch.iterations", 1, why)
        yield Choice("from_scratch.memory_steps", LAST_MEMORY_STEPS, why)
        why = "only the last M is trained for so long, and the agent dreams in its own"
        yield Choice("selection.late_iterations", 1, why)
    if many and found.actions.kind == "discrete":
        yield from _residual(horizon)
    elif found.actions.kind == "discrete":
        why = "it takes time; with choices, `full` learns one where rare ends decide"
        yield Choice("residual.enabled", False, why)
    if found.rewards.constant or found.rewards.low > 0:
        why = "no step marks a mistake: all pay the same, or more than 0"
        yield Choice("starts.off_track_weight", 1.0, why)
    yield Choice("selection.reward_bound", None, "what a step can pay at most is not known")


def _residual(horizon: int) -> Iterator[Choice]:
    """A residual that learns by trying, in dreams as long as C's."""
    yield Choice("residual.enabled", True, "M's ends are calibrated, so dreams bear long learning")
    tries = "a choice has no slope for M's gradient: other choices are tried"
    for name, value in RESIDUAL.items():
        yield Choice(f"residual.training.{name}", value, tries)
    yield Choice("residual.training.discount", 0.99, "what ends an episode is seen long before")
    yield Choice("residual.training.max_length", horizon, "as long as C's dreams")
