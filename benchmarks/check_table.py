"""What `worldmodels check` says about eighteen environments, for docs/your-own-environment.md.

    python benchmarks/check_table.py > table.md

Run it where `tests` lies. An environment whose package is not installed is left out and named on
stderr; all need `ale-py`, `minigrid` and `vizdoom`.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator

from worldmodels.protocols import UserError
from worldmodels.tasks import task_for
from worldmodels.tasks.default import measure
from worldmodels.tasks.examination import Examination
from worldmodels.tasks.findings import Finding, findings

BLOCK = "tests.envs.blocks:tests/Fake"
ENVIRONMENTS = {
    "CartPole-v1": "",
    "Pendulum-v1": "",
    "CarRacing-v3": "",
    "LunarLander-v3": "",
    "Acrobot-v1": "",
    "ale_py:ALE/Pong-v5": "",
    "ale_py:ALE/Freeway-v5": "",
    "minigrid:MiniGrid-MemoryS7-v0": "",
    "minigrid:MiniGrid-Empty-8x8-v0": "",
    "vizdoom.gymnasium_wrapper:VizdoomTakeCover-v1?frame_skip=4&obs_key=screen": "",
    "vizdoom.gymnasium_wrapper:VizdoomHealthGathering-v1": "",
    f"{BLOCK}Black-v0": "black frames",
    f"{BLOCK}White-v0": "a dead-white screen",
    f"{BLOCK}Endless-v0": "an episode that never ends",
    f"{BLOCK}Negative-v0": "negative rewards",
    f"{BLOCK}TwoSteps-v0": "episodes of two steps",
    f"{BLOCK}Never-v0": "a reward that never comes",
    f"{BLOCK}Unseeded-v0": "an environment without a seed",
}
"""What each is called in the table; its id where that is empty."""


def row(name: str, found: Examination, said: tuple[Finding, ...]) -> str:
    """A line of the table."""
    ends, pay = found.ends, found.rewards
    limit = "none" if ends.limit is None else f"{ends.limit:,}"
    seen = f"{ends.terminated} + {ends.truncated} + {ends.cut}, {ends.longest:,} of {limit}"
    paid = f"{pay.low:.3g} to {pay.high:.3g}, {1 - pay.share:.1%} not {pay.commonest:.3g}"
    worst, *others = said
    notes = [re.split(r"[:(;]|\. ", one.text)[0].strip() for one in others]
    first = worst.level if worst.level == "ok" else f"{worst.level}: {worst.text.split('. ')[0]}"
    return f"| {name} | {seen} | {paid} | {'; '.join([f'**{first}**', *notes])} |"


def table() -> Iterator[str]:
    """The table's lines, in Markdown."""
    yield (
        "| environment | episodes that terminated, were truncated, were cut; longest of limit "
        "| rewards | verdict, then notes |"
    )
    yield "|---|---|---|---|"
    for env_id, words in ENVIRONMENTS.items():
        try:
            with contextlib.redirect_stdout(sys.stderr):  # notes
                frames = task_for(env_id).frame_spec
                found = measure(env_id, rows=frames.rows, crop=frames.crop)
        except UserError as error:
            print(error, file=sys.stderr)
            continue
        name = words or f"`{env_id.rpartition(':')[2]}`"
        yield row(name, found, findings(found))


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)
