"""Charts of committed results: every point is read from benchmarks/results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from baselines.results import Run, read_runs
from scripts.figures.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RESULTS,
    chart,
    interval,
    plain,
    returns,
    save,
)

RETURN = "return on the test tracks of CarRacing-v3"
FULL = tuple(f"2026-11-27-full-mirror-seed-{seed}" for seed in (1, 2, 3))
PPO = tuple(f"2026-11-26-baselines/ppo-zoo-{seed}" for seed in (0, 1, 2))
QUICK = tuple(f"2026-12-01-quick-five-seeds/seed-{seed}" for seed in range(5))
RECURRENT = "2026-11-26-baselines/recurrent-ppo-0"
EVOLUTION, IN_DREAM = "2026-11-26-baselines/evolution-0", "2026-11-26-baselines/ppo-dream-0"


def draw_return_by_frames(path: Path) -> None:
    """Return against real frames: world models beside model-free PPO."""
    figure, axes = chart(8.6, 3.6)
    kinds = (
        ("PPO, model-free (3 runs)", PPO, MUTED, "s"),
        ("world model, full (3 runs)", FULL, BLUE, "o"),
        ("world model, quick (5 runs)", QUICK, ORANGE, "D"),
    )
    for label, names, colour, mark in kinds:
        for number, run in enumerate(_runs(names)):
            _draw_run(axes, run, colour, mark, label if number == 0 else None)
    axes.axhline(900, color=GREEN, linewidth=1, linestyle=":")
    axes.annotate("solved: 900", (8_000, 910), color=GREEN, size=9)
    axes.set(xlim=(0, 1_160_000), ylim=(-110, 960), xlabel="frames of the real environment")
    axes.set_ylabel("mean return")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:,.0f}k" if x else "0")
    axes.legend(loc="center right", frameon=False, bbox_to_anchor=(1, 0.69))
    save(figure, path)


def _runs(names: tuple[str, ...]) -> list[Run]:
    return read_runs([str(RESULTS / name) for name in names])


def _curve(run: Run) -> list[tuple[int, float]]:
    """Frames and mean return of all controllers that an iteration tried, not of its best.

    A baseline's curve has one policy at each point, so it is as it was written.
    """
    metrics = Path(run.path) / "metrics.jsonl"
    if not run.method.startswith("world model"):
        return [(point.real_frames, point.mean) for point in run.curve]
    tried: dict[int, list[float]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["stage"] == "selection":
            tried.setdefault(row.get("iteration", row.get("round")), []).append(row["real_mean"])
    means = [float(np.mean(tried[number])) for number in sorted(tried)]
    return [(point.real_frames, mean) for point, mean in zip(run.curve, means, strict=True)]


def _draw_run(axes: Axes, run: Run, colour: str, mark: str, label: str | None) -> None:
    """Thin the curve on selection tracks, large the test with its interval."""
    curve = _curve(run)
    axes.plot(*zip(*curve, strict=True), color=colour, linewidth=1.4, alpha=0.55)
    tested = np.array(list(run.returns.values()))
    low, high = interval(tested)
    assert run.cost is not None
    axes.plot([curve[-1][0], run.cost], [curve[-1][1], tested.mean()], ":", color=colour, alpha=0.6)
    axes.plot([run.cost] * 2, [low, high], color=colour, linewidth=2.5, alpha=0.6)
    axes.plot([run.cost], [tested.mean()], mark, color=colour, markersize=8, label=label)


def draw_returns(path: Path) -> None:
    """All 100 returns of each agent, their mean and its interval."""
    rows = [
        ("the package's agent", "2026-11-27-third-member/evaluation.json", GREEN),
        *((f"full, seed {n}", f"{run}/evaluation.json", BLUE) for n, run in enumerate(FULL, 1)),
        *((f"quick, seed {n}", f"{run}/evaluation.json", ORANGE) for n, run in enumerate(QUICK)),
        ("PPO in the dream", f"{IN_DREAM}/evaluation.json", PURPLE),
        *((f"PPO, seed {n}", f"{run}/evaluation.json", MUTED) for n, run in enumerate(PPO)),
        ("random actions", "2026-11-23-misses/evaluation_random.json", MUTED),
    ]
    figure, axes = chart(8.6, 5.9)
    scatter = np.random.default_rng(0)
    for place, (_, name, colour) in enumerate(rows):
        found = returns(name)
        y = place + scatter.uniform(-0.26, 0.26, len(found))
        axes.plot(found, y, ".", color=colour, alpha=0.35, markersize=5, markeredgewidth=0)
        axes.plot(interval(found), [place, place], color=INK, linewidth=3)
        axes.plot([found.mean()], [place], "o", color=INK, markersize=6)
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=f"{RETURN}: each, their mean, its 95% interval")
    axes.grid(False, axis="y")
    save(figure, path)


def draw_methods(path: Path) -> None:
    """Learning curves of every baseline beside the world model's, by real frames on a log scale."""
    figure, axes = chart(8.6, 3.6)
    kinds = (
        ("PPO, as the zoo trains it", PPO, MUTED),
        ("RecurrentPPO", (RECURRENT,), INK),
        ("C by CMA-ES on real returns", (EVOLUTION,), PURPLE),
        ("PPO in the dream", (IN_DREAM,), GREEN),
        ("world model, quick", QUICK, ORANGE),
        ("world model, full", FULL, BLUE),
    )
    for label, names, colour in kinds:
        for number, run in enumerate(_runs(names)):
            curve = _curve(run)
            shown = label if number == 0 else None
            line = axes.plot(*zip(*curve, strict=True), ".-", color=colour, label=shown)[0]
            line.set(linewidth=1.3, alpha=0.8)
    axes.set_xscale("log")
    axes.set(xlabel="frames of the real environment, those of V and M included")
    axes.set(ylabel="mean return on selection tracks", ylim=(-110, 960))
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


ENTRIES = (
    ("the package's agent", "2026-11-27-third-member/evaluation.json", GREEN),
    ("its first two members", "2026-11-26-committee/evaluation.json", GREEN),
    ("its first member", "2026-11-25-residual/evaluation.json", GREEN),
    ("full, flips, seed 1", f"{FULL[0]}/evaluation.json", BLUE),
    ("full, flips, seed 2", f"{FULL[1]}/evaluation.json", BLUE),
    ("full, flips, seed 3", f"{FULL[2]}/evaluation.json", BLUE),
    ("full, no flips, seed 1", "2026-11-27-full-fresh/evaluation.json", BLUE),
    ("full, no flips, seed 2", "2026-11-27-full-fresh-seed-2/evaluation.json", BLUE),
    ("full before, seed 1", "2026-11-23-misses/evaluation.json", BLUE),
    ("full before, seed 2", "2026-11-25-full-seed-2/evaluation.json", BLUE),
    ("full before, seed 3", "2026-11-26-full-seed-3/evaluation.json", BLUE),
    ("accidents", "2026-11-23-accidents/evaluation.json", BLUE),
    ("three memories", "2026-11-24-three-memories/evaluation.json", BLUE),
    ("first full", "2026-11-23-full/evaluation.json", BLUE),
    *((f"quick, seed {n}", f"{run}/evaluation.json", ORANGE) for n, run in enumerate(QUICK)),
    ("quick, before", "2026-11-23-quick-misses/evaluation.json", ORANGE),
    ("quick, earlier", "2026-11-23-quick/evaluation.json", ORANGE),
    ("quick in float32", "2026-11-26-quick-float32/evaluation.json", ORANGE),
    ("PPO in the dream", f"{IN_DREAM}/evaluation.json", PURPLE),
    ("CMA-ES on real returns", f"{EVOLUTION}/evaluation.json", PURPLE),
    *((f"PPO, seed {n}", f"{run}/evaluation.json", MUTED) for n, run in enumerate(PPO)),
)


def draw_entries(path: Path) -> None:
    """Mean and interval of every entry of CarRacing."""
    figure, axes = chart(8.6, 6.9)
    for place, (_, name, colour) in enumerate(ENTRIES):
        found = returns(name)
        axes.plot(interval(found), [place, place], color=colour, linewidth=5, alpha=0.35)
        axes.plot([found.mean()], [place], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(ENTRIES)), [label for label, *_ in ENTRIES])
    axes.set(ylim=(len(ENTRIES) - 0.4, -0.6), xlabel=f"mean {RETURN}, with its 95% interval")
    save(figure, path)


TEMPERATURES = "2026-11-29-temperature"
PAPER = {0.1: (2086, 193), 0.5: (2060, 196), 1.0: (1145, 868), 1.15: (918, 1092), 1.3: (732, 753)}
"""Temperature -> tics in the dream and in reality (Ha and Schmidhuber 2018, table 2)."""


def draw_temperatures(path: Path) -> None:
    """TakeCover: tics in the dream and in reality over the dream's temperature, ours and theirs."""
    found = json.loads((RESULTS / TEMPERATURES / "study.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    two = figure.subplots(1, 2, sharey=True)
    for axes, key, title in zip(
        two, ("dream", "test"), ("in the dream", "in reality"), strict=True
    ):
        plain(axes)
        ours: dict[float, list[float]] = {}
        for cell in found["cells"]:
            chosen = max(cell["snapshots"], key=lambda s: float(np.mean(s["selection"])))
            of = ours.setdefault(cell["settings"]["dream.temperature"], [])
            of.append(float(np.mean(chosen[key])))
        at = sorted(ours)
        for t in at:
            axes.plot([t] * len(ours[t]), ours[t], ".", color=BLUE, alpha=0.5)
        axes.plot(at, [np.mean(ours[t]) for t in at], "o-", color=BLUE, label="ours")
        theirs = [values[key == "test"] for values in PAPER.values()]
        axes.plot(list(PAPER), theirs, "s--", color=MUTED, label="Ha and Schmidhuber 2018")
        axes.set(xlabel="temperature of the dream", ylim=(0, 2200))
        axes.set_title(title, size=11)
    two[0].set_ylabel("tics survived")
    two[1].legend(frameon=False)
    save(figure, path)


def draw_lista(path: Path) -> None:
    """LISTA beside ISTA and FISTA at 16 iterations, three seeds."""
    found = json.loads((RESULTS / "2026-11-24-sparse/lista.json").read_text(encoding="utf-8"))
    seeds = ("1", "2", "3")
    figure, axes = chart(8.2, 2.4)
    for place, kind in enumerate(("ista", "fista", "lista")):
        values = [found[seed][f"{kind}_db"] for seed in seeds]
        axes.barh([place], [np.mean(values)], color=BLUE if kind == "lista" else MUTED, height=0.6)
        axes.plot(values, [place] * len(values), ".", color=INK)
    axes.set_yticks(range(3), ["ISTA", "FISTA", "LISTA"])
    axes.set(ylim=(2.6, -0.6), xlabel="error of the codes after 16 iterations, dB (less is better)")
    save(figure, path)


def draw_scaling(path: Path) -> None:
    """Speed of collection by workers: the model, and what one and two machines gave.

    A frame costs 1 / rate on a worker, beside others, and at home, one after the other, the CPU
    time that home needed for two machines.
    """
    one, two = json.loads((RESULTS / "cluster.json").read_text(encoding="utf-8"))["machines"]
    rates = [found["frames_per_second"] for found in (one, two)]
    home = two["frames_home_cores"] / rates[1]
    workers = np.geomspace(1, 1000, 60)
    figure, axes = chart(8.2, 3.8)
    axes.loglog(workers, workers * rates[0], ":", color=MUTED, label="n times one machine")
    model = 1 / np.maximum(1 / (workers * rates[0]), home)
    axes.loglog(workers, model, color=BLUE, label="model: until home is busy")
    axes.loglog(
        [1, 2], rates, "o", color=ORANGE, label="measured: one and two machines of one core"
    )
    axes.axhline(1 / home, color=MUTED, linewidth=0.5)
    axes.set(xlabel="workers", ylabel="frames of CarRacing a second")
    axes.legend(frameon=False)
    save(figure, path)
