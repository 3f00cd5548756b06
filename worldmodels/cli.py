"""The `worldmodels` command: one subcommand for each stage, over the functions of the package.

Nothing heavy is imported before the subcommand is known, so that `worldmodels --help` is quick.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from worldmodels import __version__
from worldmodels.protocols import UserError


class Entry(NamedTuple):
    """Where a subcommand lives, and what it does in a few words."""

    location: str
    """module of `worldmodels.commands` and dataclass in it"""
    summary: str
    """line of `worldmodels --help`"""


COMMANDS = {
    "run": Entry("run:Run", "all stages, from nothing to a report; goes on where it was stopped"),
    "collect": Entry("collect:Collect", "drive and record episodes"),
    "train-vision": Entry("vision:TrainVision", "train V on the frames"),
    "encode": Entry("vision:Encode", "turn all frames into latents with V"),
    "train-memory": Entry("memory:TrainMemory", "train M on the latents"),
    "train-controller": Entry("controller:TrainController", "evolve C in the dream, save an agent"),
    "evaluate": Entry("evaluate:Evaluate", "measure a driver in the real environment"),
    "plan": Entry("plan:PlanOnce", "plan from a state and show the plan in the dream"),
    "train-policy": Entry("train_policy:TrainPolicy", "train a policy in an agent's dreams"),
    "committee": Entry("committee:MakeCommittee", "let agents of several runs drive together"),
    "study": Entry("study:RunStudy", "evolve again in a run's dream under other settings"),
    "compare": Entry("compare:Compare", "compare methods, with intervals over runs and tracks"),
    "report": Entry("report:Report", "write the page about a run"),
    "export-minari": Entry("export_minari:ExportMinari", "write episodes as a Minari dataset"),
    "play": Entry("play:Play", "watch a driver, in reality or in its dream"),
}
"""All subcommands, in the order of the pipeline."""

REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP),
}
"""What an operating system has against a path that a user named."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after `worldmodels`; None takes the process's own.

    Returns:
        The exit status: 0 if all went well, 2 for a mistake of the user's, which is told in one
        line on stderr, 130 if the user stopped it.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] in ("-h", "--help"):
        return guarded(lambda: print(_help(), flush=True))
    if words[0] == "--version":
        return guarded(lambda: print(f"worldmodels {__version__}", flush=True))
    return guarded(lambda: _execute(words[0], words[1:], f"worldmodels {words[0]}", {}))


def script(name: str, argv: Sequence[str] | None = None, **defaults: Any) -> int:
    """Run one subcommand with other defaults, as a file of its own; arguments as of `main`.

    Args:
        name: of the subcommand.
        argv: its flags; None takes the process's own.
        defaults: fields of the subcommand's dataclass, in place of the preset's.

    Returns:
        The exit status, as of `main`.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    return guarded(partial(_execute, name, words, sys.argv[0], defaults))


def _execute(name: str, words: Sequence[str], program: str, defaults: dict[str, Any]) -> None:
    """Read the flags of one subcommand and do what it is for."""
    for word in (name, *words):
        if "\0" in word or any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UserError(f"{word!a} is no text: give words in UTF-8, without NUL")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
        raise UserError(f"unknown command {name!r}: {hint}")
    module, _, command = COMMANDS[name].location.partition(":")
    kind = getattr(importlib.import_module(f"worldmodels.commands.{module}"), command)
    parsing = importlib.import_module("worldmodels.commands.parsing")
    task = parsing.parse(kind, words, program, defaults)
    with parsing.naming_options(task):
        task.execute()


def guarded(work: Callable[[], None]) -> int:
    """Do the work, with every expected failure turned into one line and an exit status."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where it has no cache folder
    try:
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
        print("\nstopped; run the same command again to go on", file=sys.stderr)
        return 130
    except SystemExit as end:  # how the parser ends, after showing help or refusing a word
        return end.code if isinstance(end.code, int) else 2
    return 0


def _fail(text: str) -> int:
    """Print an error as one line; return the status for it."""
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    return 2


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {entry.summary}" for name, entry in COMMANDS.items()]
    return "\n".join(
        [
            "usage: worldmodels COMMAND [OPTIONS]",
            "",
            "Learn an environment from pixels, train a driver inside the learned dream, measure it",
            "in reality.",
            "",
            *lines,
            "",
            "`worldmodels COMMAND --help` explains a command's options; `--version` tells the",
            "version.",
            "Computing takes all usable cores; OMP_NUM_THREADS in the environment limits it.",
        ]
    )
