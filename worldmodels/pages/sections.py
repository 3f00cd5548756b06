"""The sections of a run's report, each from the records of the run.

A part that the run lacks is named with the command that makes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from worldmodels.metrics import Row
from worldmodels.pages import calibration, figures, findings
from worldmodels.pages.data import PICTURES, VIDEOS, RunData, Score
from worldmodels.pages.document import (
    Block,
    Figures,
    Heading,
    Media,
    Pair,
    Plot,
    Section,
    Table,
    Text,
    Warnings,
)
from worldmodels.pages.findings import Parts
from worldmodels.pages.overview import Bar, Bars
from worldmodels.pages.svg import Chart
from worldmodels.pages.text import MISSING, cores, count, duration, figure, number, percent, score

KINDS = {
    "collection": ("Collection", "training data of V and M"),
    "selection": ("Selection", "episodes that selected checkpoints of C"),
    "model_free": ("Training in the real environment", "real rewards that trained a policy"),
    "test": ("Final test", "measures the result; not used for training or selection"),
    "controls": ("Controls", "random and constant actions, which the result is compared with"),
    "dream": ("Dream", "predicted by M; cost time, not experience"),
}
"""Kind of frames in the ledger -> its name, and what they were for."""
BEHAVIOURS = {"AR1Config": "random walk", "RandomControllerConfig": "random controllers"}
"""Exploration config -> who collected."""
LEARNING = (
    (
        "vision",
        "V sees",
        "Squared error summed over an image of 64 × 64 × 3 values in [0, 1]. A held-out line that "
        "rises above the training line means overfitting.",
    ),
    (
        "memory",
        "M predicts",
        "Negative log-likelihood of the next latent vector, a density, so it may pass below 0; "
        "lower is better. Below it, the loss of the reward head.",
    ),
)
"""Training, title and caption of its chart."""


def interval_of(one: Score) -> str:
    """The interval of a mean; empty where it is unknown."""
    return "" if one.ci95 is None else " to ".join(score(end, one.digits) for end in one.ci95)


def videos(parts: Parts) -> Section:
    """Films of test episodes."""
    words, films = parts.words, [parts.media[name] for name in VIDEOS if name in parts.media]
    lead = (
        f"The best, the median and the worst test {words.episode}: the real frames, V's "
        "reconstructions and M's predictions."
    )
    blocks = [Media(films, "rows" if films[0].wide else "three")] if films else []
    return Section(
        f"Watch it {words.verb}",
        blocks or [parts.missing("videos of the test episodes")],
        lead if films else "",
        anchor="videos",
        short=words.verb.capitalize(),
    )


def episodes(parts: Parts) -> Section:
    """Returns of all test episodes, against other agents."""
    data, result, episode = parts.data, parts.data.evaluation, parts.words.episode
    title, named = f"Every test {episode}", {"anchor": "episodes"}
    named["short"] = f"{episode.capitalize()}s"
    if result is None:
        return Section(title, [parts.untested(f"returns on the test {episode}s")], **named)
    lead = (
        f"One dot is one {episode} that the agent had never seen, played once. The diamond is the "
        "mean; the bar through it is its 95% interval. A mean hides bad "
        f"{episode}s: look at the left tail."
    )
    none = [] if data.others else [f"No other agent was evaluated on these {episode}s."]
    blocks: list[Block] = [
        Plot(figures.episodes_chart(result, data.others, data.task)),
        Figures(_statistics(data, result), f"Statistics of each {parts.words.agent}"),
        *(Text(said, quiet=True) for said in none),
        Figures(
            _every_episode(data, result),
            "Every episode",
            folded=f"All {len(result.episodes)} episodes",
        ),
    ]
    return Section(title, blocks, lead, **named)


def _statistics(data: RunData, result: Score) -> Table:
    """Statistics of the run's agent and of the others on the test episodes."""
    words, solved = data.task.words, data.task.solved
    head = [words.agent, f"{words.episode}s", "mean ± std", "95% interval", "median", "IQM", "p10"]
    head += [f"≥ {score(solved)}"] if solved is not None else []
    head += [words.finished[1]] if words.finished else []
    rows = []
    for one in [result, *data.others]:
        mean, std, *rest = (
            score(value, one.digits) for value in (one.mean, one.std, one.median, one.iqm, one.p10)
        )
        row = [
            one.name,
            str(len(one.episodes)),
            f"{mean} ± {std}",
            interval_of(one) or MISSING,
            *rest,
        ]
        row += [percent(one.fraction_solved)] if solved is not None else []
        if words.finished:
            row.append(MISSING if one.laps is None else f"{one.laps} of {len(one.episodes)}")
        rows.append(row)
    return Table(head, rows)


def _every_episode(data: RunData, result: Score) -> Table:
    """Seed, return and length of every test episode, the best first."""
    finished = data.task.words.finished
    laps = [] if result.laps is None else [finished[0] if finished else "finished"]
    rows = []
    for one in sorted(result.episodes, key=lambda one: -one["return"]):
        row = [str(one["seed"]), score(one["return"], 1), count(one.get("length", 0))]
        rows.append([*row, *("yes" if one.get("lap_finished") else "no" for _ in laps)])
    return Table(["seed", "return", "frames", *laps], rows)


def dream(parts: Parts) -> Section:
    """What the dream promised, and what reality paid."""
    data, rows = parts.data, parts.checkpoints
    if not rows:
        absent = parts.missing("evaluations of checkpoints in the real environment")
        return Section("Dream and reality", [absent], anchor="dream")
    lead = (
        "The controller evolves in the dream, and some of its checkpoints are evaluated in the "
        "real environment. Where the dashed line rises and the solid one does not, the controller "
        "exploits errors of the dream."
    )
    caption = (
        "Whiskers: standard error over the real episodes of a checkpoint. The highlighted "
        "checkpoint became this agent."
    )
    bound = None if data.task.returns is None else data.task.returns[1]
    blocks: list[Block] = [Plot(figures.dream_chart(rows, bound), caption=caption)]
    blocks += _whole_dreams(data, rows)
    choices = [
        [
            name,
            str(one.get("iteration") or 0),
            str(int(one["generation"])),
            score(one.get("dream_return")),
            score(one["real_mean"]),
        ]
        for name, one in findings.choices(rows).items()
    ]
    if choices:
        head = ["chosen by", "iteration", "generation", "in the dream", "in reality"]
        blocks.append(Figures(Table(head, choices), "Which checkpoint was chosen"))
    alarms = [
        f"iteration {row.get('iteration') or 0}, generation {int(row['generation'])}: "
        f"{row['alarm']}"
        for row in rows
        if row.get("alarm")
    ]
    calm = "No alarm: no dream promises clearly more than reality paid, or lasts clearly longer."
    return Section(
        "Dream and reality", [*blocks, Warnings(alarms, calm, "alarm", "alarms")], lead, "dream"
    )


def _whole_dreams(data: RunData, rows: Sequence[Row]) -> list[Block]:
    """Dreams as long as episodes, and how long the dreams of the evolution are."""
    found, final = list[Block](), figures.final_selection(rows) or {}
    if number(final.get("whole_dream_length")) is not None:
        said = (
            f"From the first frames of its {count(final['episodes'])} real episodes, this agent's "
            f"dreams return {figure(final['whole_dream_return'])} and last "
            f"{figure(final['whole_dream_length'])} steps on average. The episodes themselves "
            f"return {figure(final['real_mean'])} and last {figure(final['real_length'])} steps."
        )
        found.append(Text(said))
    if horizon := findings.horizon(data):
        said = (
            f"A dream here lasts {horizon['dream']} steps and a real episode up to "
            f"{horizon['episode']}: compare the trends of the two lines, not their heights."
        )
        found.append(Text(said, quiet=True))
    return found


def learning(parts: Parts) -> Section:
    """Training curves, and how well M is calibrated."""
    data = parts.data
    charts, table = figures.learning_charts(data.metrics), _iterations(parts)
    lead = (
        "Each iteration collects episodes with the newest controller, adds them to the data and "
        f"trains V, M and C again. A better {parts.words.agent} reaches states that a random one "
        "does not."
    )
    pair = [
        _plot(charts[name], title, caption) or parts.missing(f"the training of {name[0].upper()}")
        for name, title, caption in LEARNING
    ]
    evolution = _plot(
        charts["controller"],
        "C evolves",
        "Returns in the dream, by generation. The agent is the mean of the search distribution, "
        "not its best sample.",
    )
    blocks: list[Block] = []
    if table.rows:
        blocks.append(Figures(table, "The loop, iteration by iteration"))
    blocks += [Text(said) for said in _explained(data)]
    blocks.append(Pair([*pair, *_calibration(parts)]))
    blocks.append(evolution or parts.missing("the evolution of C"))
    title = "How V, M and C learnt"
    return Section(title, blocks, lead if table.rows else "", "learning", "Learning")


def _plot(chart: Chart | None, title: str, caption: str) -> Plot | None:
    return None if chart is None else Plot(chart, title, caption)


def _explained(data: RunData) -> list[str]:
    found = findings.explained(data)
    if not found:
        return []
    moves = "moves" in found
    also = f" and {percent(found['moves'])} of what moves" if moves else ""
    said = (
        f"On frames that it was not trained on, V explains {percent(found['changes'])} of what "
        f"changes{also}: 0% is no better than the mean frame of all."
    )
    how = " What moves is told pixel by pixel, by its change from one frame to the next."
    return [said + (how if moves else "")]


def _iterations(parts: Parts) -> Table:
    """The loop, one row for each iteration."""
    noisy = {"AgentNoiseConfig": f"the {parts.words.agent}, with noise"}
    head = ["iteration", "frames collected by", "frames", "their mean return", "V error", "M NLL"]
    rows = []
    for iteration, one in findings.iterations(parts.data, parts.checkpoints).items():
        names = dict.fromkeys((BEHAVIOURS | noisy).get(name, name) for name in one["policies"])
        collected, checkpoint = one["collected"], one["checkpoint"]
        rows.append(
            [
                str(iteration),
                ", ".join(names) or MISSING,
                count(collected.get("frames")),
                score(collected.get("mean_return")),
                score(one["vision"], 1),
                score(one["memory"], 1),
                score(checkpoint.get("dream_return")),
                score(checkpoint.get("real_mean")),
            ]
        )
    return Table([*head, "C in the dream", "C in reality"], rows)


def _calibration(parts: Parts) -> list[Plot]:
    """How far M can be trusted: errors, rewards, ends, survival."""
    measured = parts.data.metrics["memory_calibration"]
    final = figures.final_selection(parts.checkpoints) or {}
    ends: Row = calibration.newest(measured, "ends").get("ends") or {}
    plots = [
        _plot(
            calibration.open_loop_chart(measured),
            "M, open loop",
            "M runs on its own predictions. An error above the predicted standard deviation is "
            "overconfidence, which a controller exploits.",
        ),
        _plot(
            calibration.reliability_chart(measured),
            "Predicted rewards",
            "Of the steps in which M predicts the same, the mean should be as predicted. Below the "
            "diagonal M is too optimistic.",
        ),
        _plot(
            calibration.ends_chart(ends),
            "Predicted ends",
            "Where M gives a step a chance of 1% to end the episode, one step in 100 should; below "
            f"the diagonal it sees ends that do not come.{_known_ends(ends)}",
        ),
        _plot(
            calibration.survival_chart(final.get("survival") or {}),
            "Survival",
            "The fraction still running after so many steps, from the same first frames and under "
            "the same controller: where dreams outlive reality, M misses ends, and a controller "
            "exploits that.",
        ),
    ]
    return [plot for plot in plots if plot is not None]


def _known_ends(ends: Row) -> str:
    if not ends.get("ends"):
        return ""
    said = (
        f" Of {count(ends['ends'])} recorded end{'s' if ends['ends'] > 1 else ''} M foresaw "
        f"{figure(ends['recognised'])} (its chances at these steps, summed) and expected "
        f"{figure(ends['expected'])} in all"
    )
    if ends.get("auc") is not None:
        said += f"; an end had a higher chance than another step {percent(ends['auc'])} of the time"
        said += " (AUC; 50% is blind)"
    return f"{said}."


def pictures(parts: Parts) -> Section:
    """Reconstructions and dreams."""
    found = [parts.media[name] for name in PICTURES if name in parts.media]
    absent = parts.missing("pictures of reconstructions and dreams")
    blocks = [Media(found)] if found else [absent]
    return Section("What it sees, what it dreams", blocks, "", "pictures", "Pictures")


def cost(parts: Parts) -> Section:
    """Frames and time."""
    return Section("What it cost", [*_frames(parts), *_time(parts)], short="Cost")


def _frames(parts: Parts) -> list[Block]:
    """The ledger as bars."""
    totals, real = parts.data.totals, parts.real_frames
    if not sum(totals.values()):
        return [Heading("Frames"), parts.missing("the ledger of frames")]
    bars = []
    for kind in [*KINDS, *sorted(set(totals) - set(KINDS))]:
        if frames := totals.get(kind):
            name, note = KINDS.get(kind, (kind, ""))
            parts_of = [] if kind == "dream" else [float(frames)]
            counts = "yes" if kind in real else "no"
            bars.append(Bar(name, parts_of, count(frames), counts, note, kind))
    whole = max([1.0, *(part for bar in bars for part in bar.parts)])
    said = (
        f"{count(sum(real.values()))} real frames were used for training and selection. The list "
        "has every step of the real environment."
    )
    head = ["spent on", "", "frames", "counts"]
    return [Heading("Frames"), Text(said, quiet=True), Bars(head, bars, whole, "frames")]


def _time(parts: Parts) -> list[Block]:
    """Wall clock of the stages as bars."""
    if not parts.seconds:
        return [Heading("Time"), parts.missing("the time of each stage")]
    total, many = parts.total_seconds, parts.machine.get("cores")
    bars = [
        Bar(name, turns, duration(sum(turns)), percent(sum(turns) / max(total, 1e-9)))
        for name, turns in parts.seconds.items()
    ]
    whole = max([1e-9, *(sum(turns) for turns in parts.seconds.values())])
    said = f"{duration(total)} of wall clock{f' on {cores(many)}' if many else ''}. One segment "
    said += "of a bar is one iteration."
    head = ["stage", "", "time", "fraction"]
    return [Heading("Time"), Text(said, quiet=True), Bars(head, bars, whole, "stages")]
