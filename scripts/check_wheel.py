"""Build the wheel, install it alone, and run its commands from another folder: `make wheel`.

    python scripts/check_wheel.py                  # in a fresh environment, torch by the exact pin
    python scripts/check_wheel.py --python python3.13

It takes some minutes, most of them to install torch. What pip reads from the environment
(PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL, ...) applies.
"""

import argparse
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


def main() -> None:
    """Do it in a temporary folder; stop at the first failure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter to install into")
    python = shutil.which(parser.parse_args().python)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build = ["-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        run([sys.executable, *build], ROOT)
        run([str(python), "-m", "venv", str(folder / "venv")], folder)
        (wheel,) = folder.glob("*.whl")
        pip = [str(folder / "venv/bin/python"), "-m", "pip", "--disable-pip-version-check"]
        run([*pip, "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel)], folder)
        run([*pip, "check"], folder)
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        for words in COMMANDS:
            run([str(folder / "venv/bin/worldmodels"), *words.split()], elsewhere)
    print("the wheel works alone")


def run(command: list[str], folder: Path) -> None:
    """Run a command that sees nothing of the checkout; show what it says if it fails."""
    started = time.monotonic()
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    own = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True)
    print(f"{time.monotonic() - started:6.1f} s  {' '.join(command[1:])[-110:]}", flush=True)
    if done.returncode:
        sys.exit(f"{done.stdout[-3000:]}{done.stderr[-3000:]}\nstatus {done.returncode}")


if __name__ == "__main__":
    main()
