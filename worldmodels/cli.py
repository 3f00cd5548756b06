"""The `worldmodels` command: one subcommand for each stage, over the functions of the package.

Nothing heavy is imported before the subcommand is known, so that `worldmodels --help` is quick.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

from worldmodels import __version__
from worldmodels.protocols import UserError, shipped


class Entry(NamedTuple):
    """A subcommand."""

    location: str  #: module and class, in `worldmodels.commands` or a sister package's `commands`
    summary: str  #: its line in the help

    def load(self) -> type:
        """Import the class; until then it is only named, since `worldmodels` stands alone."""
        module, _, name = self.location.partition(":")
        place = module if "." in module else f"worldmodels.commands.{module}"
        command: type = getattr(importlib.import_module(place), name)
        return command


COMMANDS = {
    "check": Entry("check:Check", "look at an environment, and choose settings for it"),
    "run": Entry("run:Run", "all stages, from nothing to a report; resumes an interrupted run"),
    "collect": Entry("collect:Collect", "record episodes"),
    "train-vision": Entry("train:TrainVision", "train V on the frames"),
    "encode": Entry("train:Encode", "turn all frames into latents with V"),
    "train-memory": Entry("train:TrainMemory", "train M on the latents"),
    "train-controller": Entry("train:TrainController", "evolve C in the dream, save an agent"),
    "evaluate": Entry("evaluate:Evaluate", "measure a policy in the real environment"),
    "plan": Entry("planning:PlanOnce", "plan from a state and show the plan in the dream"),
    "train-policy": Entry("planning:TrainPolicy", "train a policy in an agent's dreams"),
    "ensemble": Entry("planning:MakeEnsemble", "average the actions of several agents"),
    "study": Entry("study:RunStudy", "evolve again in a run's dream under other settings"),
    "sweep": Entry("sweep:Sweep", "run seeds x settings x environments, compare them on a page"),
    "compare": Entry("run:Compare", "compare methods, with intervals over runs and episodes"),
    "report": Entry("run:Report", "write the page about a run"),
    "export-minari": Entry("collect:ExportMinari", "write episodes as a Minari dataset"),
    "export-web": Entry("export_web:ExportWeb", "one page: act inside an agent's dream"),
    "play": Entry("play:Play", "watch an agent or act yourself, in reality or a dream"),
    "baseline": Entry("baselines.commands:Baseline", "train PPO, for comparison with a run"),
    "baseline-evolve": Entry("baselines.commands:Evolve", "evolve C in the real environment"),
    "gan": Entry("sparse_gan.commands:GAN", "train a GAN as an energy-based model"),
    "gan-vae": Entry("sparse_gan.commands:GANAndVAE", "compare a GAN with V on the same frames"),
    "gan-limits": Entry("sparse_gan.commands:GANLimits", "show where GANs fail, and what helps"),
    "gan-score": Entry("sparse_gan.commands:GANScore", "ask a GAN how real dreamt frames look"),
    "sparse": Entry("sparse_gan.commands:Sparse", "train a sparse code or auto-encoder"),
}
"""All subcommands, in the order of the pipeline; then the comparisons beside it."""

REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP),
}
"""Errors of the operating system about a path of the user's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, by default the process's own, and return the exit status.

    It is 0, 2 for a mistake of the user's (one line on stderr), or 130 if the user stopped it.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] in ("-h", "--help", "--help-all"):
        return guarded(lambda: print(_help(), flush=True))
    if words[0] == "--version":
        return guarded(lambda: print(f"worldmodels {__version__}", flush=True))
    return guarded(lambda: _execute(words[0], words[1:]))


def _execute(name: str, words: Sequence[str]) -> None:
    """Read the flags of one subcommand and execute it."""
    for word in (name, *words):
        if "\0" in word or any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UserError(f"{word!a} is not text: give words in UTF-8, without NUL")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
        raise UserError(f"unknown command {name!r}: {hint}")
    with _imports_for(words):
        parsing = importlib.import_module("worldmodels.commands.parsing")
        task = parsing.parse(COMMANDS[name].load(), words, f"worldmodels {name}")
    parsing.use_all_cores()
    with parsing.naming_options(task):
        task.execute()


def _imports_for(words: Sequence[str]) -> AbstractContextManager[None]:
    """Stand-ins for heavy libraries, if the words ask for help alone."""
    from worldmodels.commands.help import ASKS, stand_ins

    heavy = "torch" in sys.modules or any(word.startswith("--env") for word in words)
    return nullcontext() if heavy or not ASKS.intersection(words) else stand_ins()


def guarded(work: Callable[[], None]) -> int:
    """Do the work; turn every expected failure into one line and an exit status."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where it has no cache folder
    try:
        with _closing_when_terminated():
            work()
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno in REFUSALS and error.filename is not None:
            return _fail(f"{error.filename}: {os.strerror(error.errno)}; give another path")
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" at {error.filename}" if error.filename else ""
        return _fail(f"the disk is full{where}; free some space and run the same command again")
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to resume", file=sys.stderr)
        return 130
    except SystemExit as end:  # how the parser ends, after showing help or refusing a word
        return end.code if isinstance(end.code, int) else 2
    return 0


@contextmanager
def _closing_when_terminated() -> Iterator[None]:
    """Let SIGTERM and a lost terminal end the work as Ctrl-C does, so that everything is closed."""

    def end(number: int, frame: object) -> None:
        print("\nstopped; run the same command again to resume", file=sys.stderr)
        raise SystemExit(128 + number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names]
    caught = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        caught = []
    for number in caught:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def _fail(text: str) -> int:
    """Print an error as one line; return the status for it."""
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    return 2


def _help() -> str:
    lines = "\n".join(f"  {name:18}{entry.summary}" for name, entry in COMMANDS.items())
    return f"""\
usage: worldmodels COMMAND [OPTIONS]

Learn an environment from pixels, train a policy inside the learned dream, measure it in reality.

{lines}

`worldmodels COMMAND --help` explains the options that most people need, `--help-all` every option;
`--version` prints the version.
Agents in the package: {", ".join(shipped())}.
Computing takes all usable cores; OMP_NUM_THREADS in the environment limits it."""
