"""Sentences about a comparison: warnings about its protocol, and conclusions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from baselines.comparison import LOST, Comparison, Method, Pair
from baselines.results import Run
from worldmodels.pages.text import count, interval, score
from worldmodels.protocols import NUM_TEST_SEEDS, TEST_SEED_START

ENOUGH = 5
"""Fewest training runs for a reliable interval over runs."""

_LIBRARIES = ("gymnasium", "box2d")


def warnings(found: Comparison) -> list[str]:
    """Limits of the comparison."""
    tested = [run for method in found.methods for run in method.runs if run.returns]
    said = [*_about_seeds(found), *_about_tracks(found, tested)]
    said += _differing(tested, "environments of the test", lambda run: run.env or "unknown")
    said += _differing(
        tested, "action modes", lambda run: "mode" if run.deterministic else "sampled actions"
    )
    for name in _LIBRARIES:
        said += _differing(tested, f"versions of {name}", partial(_version, name))
    runs = [run for method in found.methods for run in method.runs]
    said += _about_costs(runs)
    said += _differing(
        [run for run in runs if run.seconds and run.machine.get("cpu")],
        "machines, so that wall-clock times cannot be compared",
        machine,
    )
    return said


def machine(run: Run) -> str:
    """The machine that trained, as far as it is known."""
    cores = run.machine.get("cores", "?")
    cpu = run.machine.get("cpu")
    return f"{f'{cpu}, ' if cpu else ''}{cores} core{'' if cores == 1 else 's'}"


def _version(name: str, run: Run) -> str:
    return run.versions.get(name, "unknown")


def _about_seeds(found: Comparison) -> list[str]:
    said = []
    trained = [m for m in found.methods if any(run.trained for run in m.runs)]
    for tested in range(1, ENOUGH):
        if names := [method.name for method in trained if method.tested == tested]:
            said.append(f"{', '.join(names)}: {_few(tested, len(names) > 1)}")
    for method in trained:
        seeds = [run.seed for run in method.runs if run.seed is not None]
        if len(set(seeds)) < len(seeds):
            said.append(f"{method.name}: runs with the same seed are not independent.")
        untested = len([run for run in method.runs if not run.returns])
        if untested:
            said.append(f"{method.name}: {untested} of its runs have no test yet.")
    return said


def _few(runs: int, several: bool) -> str:
    """What so few training runs, of one method or of several, do not tell."""
    each = " each" if several else ""
    if runs > 1:
        interval = "intervals are" if several else "interval is"
        return f"{runs} training runs{each}. The {interval} rough, and usually too narrow."
    interval = "Their intervals are" if several else "Its interval is"
    says = "say" if several else "says"
    return (
        f"one training run{each}. {interval} over tracks only and {says} nothing about variation "
        "between training runs."
    )


def _about_tracks(found: Comparison, tested: Sequence[Run]) -> list[str]:
    if not tested:
        return ["No run was tested: there are only learning curves, on selection tracks."]
    if not found.tracks:
        return ["The runs have no test track in common, so nothing below compares them."]
    said = []
    longest = max(len(run.returns) for run in tested)
    if any(len(run.returns) != len(found.tracks) for run in tested):
        said.append(
            f"The runs were tested on different tracks (up to {longest}); all figures are of the "
            f"{len(found.tracks)} that they have in common."
        )
    test = range(TEST_SEED_START, TEST_SEED_START + NUM_TEST_SEEDS)
    if not set(found.tracks) <= set(test):
        said.append("Some tracks are not among the published test tracks.")
    elif len(found.tracks) < NUM_TEST_SEEDS:
        said.append(f"{len(found.tracks)} of the {NUM_TEST_SEEDS} test tracks were evaluated.")
    return said


def _about_costs(runs: Sequence[Run]) -> list[str]:
    said = []
    costs = [(run.cost, run) for run in runs if run.cost]
    if costs:
        low, high = (pick(costs, key=lambda pair: pair[0]) for pick in (min, max))
        if high[0] > 1.5 * low[0]:
            said.append(
                f"Costs differ: from {count(low[0])} real frames ({low[1].method}) to "
                f"{count(high[0])} ({high[1].method}). Compare the curves, not only their ends."
            )
    unknown = dict.fromkeys(run.method for run in runs if run.trained and not run.frames)
    said += [f"{method}: no ledger of frames, so its cost is unknown." for method in unknown]
    for run in runs:
        trained = sum(run.frames.get(kind, 0) for kind in ("model_free", "collection"))
        if run.budget and run.frames.get("model_free") and trained < 0.98 * run.budget:
            said.append(
                f"{run.method}, seed {run.seed}: {count(trained)} of {count(run.budget)} frames "
                "trained; the run is unfinished, with its learning rate not yet annealed."
            )
    return said


def _differing(runs: Sequence[Run], what: str, of: Callable[[Run], object]) -> list[str]:
    methods: dict[str, list[str]] = {}
    for method, value in {run.method: str(of(run)) for run in runs}.items():
        methods.setdefault(value, []).append(method)
    if len(methods) < 2:
        return []
    named = "; ".join(f"{', '.join(names)}: {value}" for value, names in methods.items())
    return [f"Different {what} ({named})."]


def conclusions(found: Comparison) -> list[str]:
    """Conclusions, pair by pair, and where mean and IQM disagree."""
    methods = {method.name: method for method in found.methods}
    said = [_reversal(first, second) for first, second in found.reversals]
    said += [_conclusion(pair, methods[pair.ours], methods[pair.theirs]) for pair in found.pairs]
    if not said:
        said.append("No two methods have common test tracks: nothing can be concluded.")
    return said


def _reversal(first: Method, second: Method) -> str:
    """The mean puts the first method ahead, the IQM the second."""
    means, iqms = (
        [score(method.figures[name].value) for method in (first, second)]
        for name in ("mean", "iqm")
    )
    lost = [method.figures["lost"].value for method in (first, second)]
    return (
        f"Mean and IQM disagree: {first.name} has the higher mean ({means[0]} against {means[1]}), "
        f"{second.name} the higher IQM ({iqms[1]} against {iqms[0]}). The IQM discards the lowest "
        f"quarter of the episodes, lost ones with it: {lost[0]:.0%} of {first.name}'s returns and "
        f"{lost[1]:.0%} of {second.name}'s are below {LOST:.0f}. The mean decides here."
    )


def _conclusion(pair: Pair, ours: Method, theirs: Method) -> str:
    difference = pair.difference.mean
    text = (
        f"{pair.ours} against {pair.theirs}: "
        f"{interval(difference.value, difference.low, difference.high, ' more per track')}, above "
        f"on {pair.difference.wins:.0%} of the tracks. "
    )
    apart = difference.low > 0 or difference.high < 0
    fixed = [m.name for m in (ours, theirs) if m.tested == 1 and m.runs[0].trained]
    if not apart:
        return text + "The interval contains 0: these runs do not separate the two."
    if fixed:
        whose = " and of ".join(fixed)
        return text + (
            f"These policies differ. With a single training run of {whose}, it is open whether the "
            "methods do."
        )
    fewest = min(m.tested for m in (ours, theirs) if m.runs[0].trained)
    if fewest < ENOUGH:
        return text + f"That is evidence for the method, from {fewest} runs."
    return text + "That holds for the methods under this protocol, not for other budgets."
