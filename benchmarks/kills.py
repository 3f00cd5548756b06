"""What kills, flipped bits and lost files do to a run: always the same agent, or one clear error.

    python benchmarks/kills.py --kills 50 --flips 30 --losses 20 --preset smoke --json kills.json

A run is finished once, undisturbed; every case begins with a copy of its folder. A kill takes back
the stages from a random moment of the run on, lets the same command do them again, and ends it with
SIGKILL at that moment. A flip changes one bit of a random file, however small; a loss deletes or
empties a random file, or deletes a folder. Then the same command follows. What came of a case is
written to the JSON file at once, and the same call continues where the last one ran out of time.
Run by hand; the seed and the number of a case fix what is done in it, up to the machine's speed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodels.runs import machine, read_json, versions, write_json

AGENT = ("vision", "memory", "controller", "starts", "residual")
"""Tensors by which agents are compared."""

FORKS = multiprocessing.get_context("forkserver")
"""Its server imports everything once, and each run is a fork of it: that saves seconds a case."""


@dataclass
class Setup:
    """What all cases share."""

    command: list[str]
    """the words of the command line, but the folder"""
    finished: Path
    """the undisturbed run"""
    out: Path
    """folder of the case"""

    def start(self, out: Path) -> Any:
        """The command over a folder, in a process of its own."""
        process = FORKS.Process(target=_work, args=([*self.command, "--out", str(out)], str(out)))
        process.start()
        return process


def _work(words: list[str], out: str) -> None:
    for descriptor, kind in ((1, "told"), (2, "error")):
        os.dup2(os.open(f"{out}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    from worldmodels.cli import main

    status = main(words)
    sys.stdout.flush()
    os._exit(status)


def told(out: Path, kind: str = "told") -> str:
    """What the command wrote to its output, or its error."""
    path = Path(f"{out}.{kind}")
    return path.read_text(errors="replace") if path.exists() else ""


def result(out: Path) -> list[Any]:
    """The weights of a run's agent, its frames, and its returns on the test tracks."""
    files = [out / "agent" / f"{name}.safetensors" for name in AGENT]
    weights = [path.read_bytes() if path.exists() else b"" for path in files]
    episodes = read_json(out / "evaluation.json")["episodes"]
    totals = read_json(out / "frames.json")["totals"]
    return [weights, totals, [episode["return"] for episode in episodes]]


def verdict(setup: Setup) -> tuple[str, str]:
    """What the command over a disturbed folder comes to, and the details."""
    process = setup.start(setup.out)
    process.join(600)
    if process.exitcode is None:
        process.kill()
        process.join()
    output, error = told(setup.out), told(setup.out, "error")
    if process.exitcode == 0:
        if result(setup.out) != result(setup.finished):
            return "FAILURE: another agent, ledger or test", output[-2000:]
        again = re.findall(r"^== (\w+/\d\d)$", output, re.MULTILINE)
        return "same agent", f"done again: {', '.join(again) or 'nothing'}"
    clear = process.exitcode == 2 and error.count("\n") <= 1 and error.startswith("error: ")
    status = f"FAILURE: status {process.exitcode}"
    return ("clear error" if clear else status), (error if clear else error + output)[-2000:]


def kill(setup: Setup, rng: random.Random) -> str:
    """Take back the stages from a random moment on, do them again, and kill that at the moment."""
    paths = (setup.finished / "stages").rglob("*.json")
    records = sorted((read_json(path) for path in paths), key=lambda record: record["time"])
    began = setup.finished.with_suffix(".began").stat().st_mtime
    moment = rng.uniform(began, records[-1]["time"])
    place = next(n for n, record in enumerate(records) if record["time"] > moment)
    for record in records[place:]:
        for name in record["files"]:
            (setup.out / name).unlink(missing_ok=True)
        (setup.out / "stages" / f"{record['stage']}.json").unlink()
    stage, since = records[place]["stage"], records[place - 1]["time"] if place else began
    process, first = setup.start(setup.out), f"== {stage}\n"
    while process.is_alive() and first not in told(setup.out):
        time.sleep(0.01)
    process.join(moment - since)
    what = f"{moment - since:.2f} s into {stage}"
    if process.is_alive():
        process.kill()
        process.join()
        return what
    return f"{what}, after which it had ended"


def flip(setup: Setup, rng: random.Random) -> str:
    """Flip one bit of a random file, however small; files count alike, not bytes."""
    files = sorted(p for p in setup.out.rglob("*") if p.is_file() and p.stat().st_size)
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    at, bit = rng.randrange(len(data)), rng.randrange(8)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {at} of {path.relative_to(setup.out)}"


def lose(setup: Setup, rng: random.Random) -> str:
    """Delete or empty a random file, or delete a folder."""
    path = rng.choice(sorted(setup.out.rglob("*")))
    if path.is_dir():
        shutil.rmtree(path)
    elif rng.random() < 0.5:
        path.write_bytes(b"")
    else:
        path.unlink()
    return f"{path.relative_to(setup.out)} {'emptied' if path.exists() else 'deleted'}"


CASES: dict[str, Callable[[Setup, random.Random], str]] = {
    "kills": kill,
    "flips": flip,
    "losses": lose,
}


def finish(setup: Setup) -> None:
    """Make the undisturbed run, unless an earlier call has."""
    done = setup.finished.with_suffix(".json")
    if done.exists() and read_json(done) == setup.command:
        return
    shutil.rmtree(setup.finished, ignore_errors=True)
    setup.finished.mkdir(parents=True)
    process = setup.start(setup.finished)
    while process.is_alive() and "\n== collect/00\n" not in f"\n{told(setup.finished)}":
        time.sleep(0.01)
    setup.finished.with_suffix(".began").touch()
    process.join()
    if process.exitcode:
        raise SystemExit(f"the undisturbed run failed: {told(setup.finished, 'error')}")
    write_json(done, setup.command)


def main() -> None:
    """Do the cases that the JSON file does not have yet, as far as the time allows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, count in (("kills", 50), ("flips", 30), ("losses", 20), ("seed", 0), ("workers", 1)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--seconds", type=float, default=540.0, help="begin no case after so long")
    parser.add_argument("--work", type=Path, default=Path("runs/kills"), help="folder to work in")
    parser.add_argument("--json", type=Path, default=Path("runs/kills/kills.json"))
    args = parser.parse_args()
    until = time.monotonic() + args.seconds
    words = ["run", "--preset", args.preset, "--workers", str(args.workers)]
    setup = Setup(words, args.work.absolute() / "finished", args.work.absolute() / "case")
    FORKS.set_forkserver_preload(["worldmodels.cli", "worldmodels.pipeline"])
    finish(setup)
    about = {"seed": args.seed, "command": words, "machine": machine(), "versions": versions()}
    cases: list[dict[str, Any]] = read_json(args.json)["cases"] if args.json.exists() else []
    wanted = [(kind, number) for kind in CASES for number in range(getattr(args, kind))]
    known = {(case["kind"], case["number"]) for case in cases if case["seed"] == args.seed}
    left = [case for case in wanted if case not in known]
    for place, (kind, number) in enumerate(left):
        if time.monotonic() > until:
            print(f"{len(left) - place} cases are left: call it again")
            break
        shutil.rmtree(setup.out, ignore_errors=True)
        shutil.copytree(setup.finished, setup.out)
        for name in ("told", "error"):
            Path(f"{setup.out}.{name}").unlink(missing_ok=True)
        began = time.monotonic()
        what = CASES[kind](setup, random.Random(f"{args.seed}/{kind}/{number}"))
        found, details = verdict(setup)
        print(f"{kind} {number}, {what}: {found} ({details.strip()})", flush=True)
        case = {"kind": kind, "number": number, "seed": args.seed, "what": what, "verdict": found}
        case |= {"details": details, "seconds": round(time.monotonic() - began, 1)}
        cases.append(case)
        counts = Counter(f"{case['kind']}: {case['verdict']}" for case in cases)
        write_json(args.json, {**about, "counts": counts, "cases": cases})
    print(json.dumps(Counter(f"{case['kind']}: {case['verdict']}" for case in cases), indent=2))


if __name__ == "__main__":
    main()
