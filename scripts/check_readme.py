"""Run the commands and Python that a Markdown file shows, in order, as its reader would.

Fenced blocks marked `bash` and `python` are run, others are not. Lines that call make are left out:
they are targets of their own. Everything is written to a temporary folder.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps(markdown: str) -> list[list[str]]:
    """Return the commands that a Markdown text shows, one list of arguments each."""
    found = []
    for language, block in FENCE.findall(markdown):
        lines = [line for line in block.splitlines() if not line.lstrip().startswith("make ")]
        if language == "python":
            found.append([sys.executable, "-c", block])
        elif any(line.strip() for line in lines):
            found.append(["bash", "-euxo", "pipefail", "-c", "\n".join(lines)])
    return found


def main() -> None:
    """Run the blocks of the file named on the command line; stop at the first that fails."""
    commands = steps(Path(sys.argv[1]).read_text(encoding="utf-8"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "scripts").symlink_to(ROOT / "scripts")  # as in the reader's clone
        for command in commands:
            started = time.monotonic()
            environment = {**os.environ, "PATH": path}
            done = subprocess.run(command, cwd=folder, env=environment, check=False)
            if done.returncode:
                sys.exit(f"{sys.argv[1]}: status {done.returncode} from\n{command[-1]}")
            print(f"-- {time.monotonic() - started:.0f} s", flush=True)
    print(f"{len(commands)} blocks of {sys.argv[1]} ran")


if __name__ == "__main__":
    main()
