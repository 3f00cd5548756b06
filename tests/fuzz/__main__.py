"""A long run by hand: `python -m tests.fuzz --examples 2000 --seed 0`.

Every failure is counted, by what it is and where it comes from, with the first case that had it.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter, defaultdict

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import time
import traceback
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.areas import AREAS, Area
from tests.fuzz.guard import attempt, signature


def survey(
    area: Area, examples: int, number: int, trace: bool = False
) -> tuple[Counter[str], dict[str, list[Any]]]:
    """Verdicts, and the cases of every failure by its signature."""
    verdicts: Counter[str] = Counter()
    failures: dict[str, list[Any]] = defaultdict(list)

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(area.cases)
    def run(case: Any) -> None:
        verdict, error = attempt(area.check, case)
        verdicts[verdict] += 1
        if error is not None:
            name = signature(error)
            if trace and name not in failures:
                traceback.print_exception(error)
            failures[name].append(case)

    run()
    return verdicts, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2000, help="inputs over all areas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--area", choices=[*AREAS], action="append")
    parser.add_argument("--trace", action="store_true", help="print a traceback of each failure")
    args = parser.parse_args()
    areas = args.area or [*AREAS]
    for name in areas:
        began = time.perf_counter()
        verdicts, failures = survey(AREAS[name], args.examples // len(areas), args.seed, args.trace)
        failed = verdicts.pop("failed", 0)
        counts = ", ".join(f"{verdicts[v]} {v}" for v in ("accepted", "refused"))
        seconds = time.perf_counter() - began
        print(
            f"{name}: {counts}, {failed} failed in {len(failures)} ways, {seconds:.0f} s",
            flush=True,
        )
        for text, cases in sorted(failures.items(), key=lambda item: -len(item[1])):
            print(f"  {len(cases):4d}  {text}\n        {cases[0]!r}"[:400], flush=True)


if __name__ == "__main__":
    main()
