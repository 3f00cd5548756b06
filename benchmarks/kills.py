"""What kills, flipped bits and deleted files do to a run: `python benchmarks/kills.py [SECONDS]`.

A tiny run is killed (SIGKILL) at a random moment; single bits of a finished run's folder are
flipped, and files and folders of it deleted; each is followed by the same command.
Counted is what came of each case: the same agent (with or without stages done again), a clear
error (status 2, one line), or a failure, which is printed. Run by hand; a seed draws the cases.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
import torch
from tests.pipeline_worker import tiny
from worldmodels.cli import guarded
from worldmodels.pipeline import run_pipeline
torch.set_num_threads(1)
sys.exit(guarded(lambda: run_pipeline(tiny(), Path(sys.argv[1]), 1, workers=1, preset="tiny")))
"""
AGENT = ("vision", "memory", "controller", "starts", "residual")
"""Tensors by which agents are compared."""


def start(out: Path) -> subprocess.Popen[str]:
    """The run, in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(out: Path) -> tuple[list[bytes], str]:
    """The weights of a run's agent, and its frames."""
    files = [out / "agent" / f"{name}.safetensors" for name in AGENT]
    weights = [path.read_bytes() if path.exists() else b"" for path in files]
    return weights, (out / "frames.json").read_text().partition('"totals"')[2]


def verdict(out: Path, wanted: tuple[list[bytes], str]) -> tuple[str, str]:
    """What a run over a folder comes to, and the details."""
    process = start(out)
    told, error = process.communicate(timeout=300)
    again = any(re.fullmatch(r"== \w+/\d\d", line) for line in told.splitlines())
    if process.returncode == 0:
        if result(out) == wanted:
            return f"same agent, {'some stages' if again else 'no stage'} done again", told
        return "FAILURE: another agent or ledger", told
    clear = process.returncode == 2 and error.count("\n") <= 1 and error.startswith("error: ")
    return ("clear error" if clear else f"FAILURE: status {process.returncode}"), error


def kill(out: Path, wanted: tuple[list[bytes], str], rng: random.Random, seconds: float) -> str:
    """Start a run, kill it at a random moment, and let the same command end it."""
    process = start(out)
    time.sleep(rng.uniform(0.0, seconds))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return report("kill", *verdict(out, wanted))


def flip(out: Path, wanted: tuple[list[bytes], str], rng: random.Random, _: float) -> str:
    """Flip one bit of a random file, however small; files count alike, not bytes."""
    path = rng.choice(sorted(p for p in out.rglob("*") if p.is_file() and p.stat().st_size))
    data = bytearray(path.read_bytes())
    at, bit = rng.randrange(len(data)), rng.randrange(8)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return report(f"bit {bit} of byte {at} of {path.relative_to(out)}", *verdict(out, wanted))


def delete(out: Path, wanted: tuple[list[bytes], str], rng: random.Random, _: float) -> str:
    """Delete or empty a random file, or delete a folder."""
    path = rng.choice(sorted(out.rglob("*")))
    if path.is_dir():
        shutil.rmtree(path)
    elif rng.random() < 0.5:
        path.write_bytes(b"")
    else:
        path.unlink()
    return report(f"lost {path.relative_to(out)}", *verdict(out, wanted))


def report(case: str, found: str, details: str) -> str:
    """Print a case; failures and errors with what was told."""
    print(f"{case}: {found}", flush=True)
    if not found.startswith("same"):
        print("    " + "\n    ".join(details.strip().splitlines()[-6:]), flush=True)
    return found


CASES: dict[str, Callable[[Path, tuple[list[bytes], str], random.Random, float], str]] = {
    "kills": kill,
    "flipped bits": flip,
    "lost files": delete,
}


def main() -> None:
    """Do as many cases as the time allows, in turn, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", type=float, nargs="?", default=360.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, until = random.Random(args.seed), time.monotonic() + args.seconds
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as name:
        finished, began = Path(name) / "finished", time.monotonic()
        if start(finished).wait():
            raise SystemExit("the undisturbed run failed")
        length, wanted = time.monotonic() - began, result(finished)
        while time.monotonic() < until:
            for kind, case in CASES.items():
                out = Path(name) / "run"
                shutil.rmtree(out, ignore_errors=True)
                if kind != "kills":
                    shutil.copytree(finished, out)
                counts[kind, case(out, wanted, rng, length)] += 1
    for (kind, found), count in sorted(counts.items()):
        print(f"{kind:14} {found:34} {count}")


if __name__ == "__main__":
    main()
