"""Build the wheel, install it alone, and run its commands from another folder: `make wheel`.

    python scripts/check_wheel.py                  # in a fresh environment, by the exact pins
    python scripts/check_wheel.py --python python3.13
    python scripts/check_wheel.py --out runs/wheel # and keep what the commands wrote

It takes some minutes, half of them to install torch. What pip reads from the environment
(PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL, ...) applies.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMALL_GAN = "--steps 4 --width 2 --batch-size 8 --count 100 --evaluate 20"
COMMANDS = (
    "play --agent car-racing --video play.mp4 --max-steps 30",
    "play --agent car-racing --dream --video dream.mp4 --max-steps 30",
    "export-web --out dream.html",
    "evaluate --agent car-racing --episodes 1 --max-steps 60 --json evaluation.json",
    "run --preset smoke --out runs/smoke",
    "collect --preset smoke --episodes 12 --max-steps 20 --out episodes",
    f"gan --data episodes --out runs/gan {SMALL_GAN}",
    "gan-score --gan runs/gan --agent runs/smoke --data episodes --frames 20",
    "sparse --method dictionary --data runs/smoke --count 300 --size 6 --units 9 --epochs 1",
    "baseline --run runs/smoke --frames 64 --evaluate-episodes 1 --test-episodes 1",
    "baseline-evolve --agent runs/smoke --out runs/es --frames 100 --evaluate-episodes 1 "
    "--drive.episodes 1 --drive.max-steps 10",
    "compare random=runs/smoke/evaluation.json --out runs/compare",
    "report --run runs/smoke",
)


LARGEST = 30_000_000
"""Bytes of the wheel."""


def main() -> None:
    """Do it; stop at the first failure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter to install into")
    parser.add_argument("--out", type=Path, help="empty folder to keep (default: a temporary one)")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = args.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        check(str(shutil.which(args.python)), folder.absolute())


def check(python: str, folder: Path) -> None:
    """Build, install and run in a folder."""
    elsewhere, began = folder / "elsewhere", time.monotonic()
    elsewhere.mkdir(parents=True)
    build = ["-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    run("build the wheel", [sys.executable, *build], ROOT)
    (wheel,) = folder.glob("*.whl")
    size = wheel.stat().st_size
    print(f"          {wheel.name}: {size:,} bytes of at most {LARGEST:,}", flush=True)
    if size > LARGEST:
        sys.exit("the wheel is too large")
    run("make an environment", [python, "-m", "venv", str(folder / "venv")], folder)
    pip = [str(folder / "venv/bin/python"), "-m", "pip", "--disable-pip-version-check"]
    pinned = ["-c", str(ROOT / "constraints.txt"), str(wheel)]
    run("install the wheel, and what it needs", [*pip, "install", "-q", *pinned], folder)
    run("pip check", [*pip, "check"], folder)
    for words in COMMANDS:
        program = str(folder / "venv/bin/worldmodels")
        run(f"worldmodels {words}", [program, *words.split()], elsewhere)
    print(f"the wheel works alone, checked in {time.monotonic() - began:.0f} s")


def run(what: str, command: list[str], folder: Path) -> None:
    """Run a command that sees nothing of the checkout; show what it says if it fails."""
    if sys.stdout.isatty():
        print(f"  ...     {what}", end="\r", flush=True)
    started = time.monotonic()
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    own = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True)
    print(f"{time.monotonic() - started:6.1f} s  {what}", flush=True)
    if done.returncode:
        sys.exit(f"{done.stdout[-3000:]}{done.stderr[-3000:]}\nstatus {done.returncode}")


if __name__ == "__main__":
    main()
