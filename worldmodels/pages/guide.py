"""How to read a report: short articles, in the words of its task."""

from __future__ import annotations

from worldmodels.tasks import Words


def articles(words: Words) -> list[tuple[str, str]]:
    """(title, text) pairs."""
    episode = words.episode
    found = [
        (
            "Three parts",
            "V, vision, encodes each frame as a short vector z. M, memory, reads z and the action "
            "and predicts the next z, the reward and the end of the episode; the next z is a "
            "mixture of possible futures. Its state is h. C, the controller, is small: a few "
            "hundred weights from [z, h] to the action.",
        ),
        (
            "The dream",
            "M can feed its own predictions back into itself. It then needs no environment: C "
            "acts, M answers, and thousands of such dreams run side by side. C is evolved: "
            "evaluate a population, move the search towards the best, repeat. Only rewards that M "
            "predicts count.",
        ),
        (
            "Why the dream lies",
            "M is accurate where it has data. Elsewhere it guesses, and evolution also finds the "
            "wrong guesses that pay. Randomness in the dream (temperature, dropout, an ensemble of "
            "Ms) makes them harder to exploit; too much of it hides the task. So the agent is "
            "chosen by returns in the real environment, never by those in the dream.",
        ),
        ("The score", words.score or ""),
        (
            "The interval",
            f"Other test {episode}s would give another mean. The 95% interval is a bootstrap over "
            f"the {episode}s at hand. It says nothing about variation between training runs; that "
            "takes several runs.",
        ),
        (
            "Median, IQM, p10",
            f"Half of the {episode}s lie below the median. IQM is the mean of the middle half: "
            f"less noisy than the mean, more sensitive than the median. One {episode} in ten lies "
            "below p10.",
        ),
        (
            "Real frames",
            "On a robot, real experience is the cost. The ledger counts every real frame used for "
            "training or selection. The final test is listed but not counted; dreamt frames cost "
            "only time.",
        ),
        (
            "Three sets of seeds",
            "One set for training, one for selecting the checkpoint, one for the final test; no "
            "seed is in two of them. A score on the selection seeds would be biased upwards.",
        ),
    ]
    return [(title, text) for title, text in found if text]
