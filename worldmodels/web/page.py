"""The dream player as one file."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import torch

from worldmodels import envs
from worldmodels._agent_files import CONFIG
from worldmodels.agent import Agent, find
from worldmodels.memory.interface import MemoryState
from worldmodels.memory.mixture import mixture_noise
from worldmodels.pages.report import PLAYER
from worldmodels.policies.ensemble import other_members
from worldmodels.policies.learned import MeanActor, PolicyFile
from worldmodels.policies.opening import own_policy, policy_path
from worldmodels.protocols import UserError
from worldmodels.runs import atomic_write
from worldmodels.tasks import Task, named, task_of
from worldmodels.web import reality
from worldmodels.web.controls import bars, controls
from worldmodels.web.weights import Blob, Tree, chosen_starts, model

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("engine.js", "dream.js", "player.js", "panels.js", "main.js")
"""In the order in which they are put together."""
USUAL_RATE, FASTEST_RATE = 12.0, 15.0
"""Decisions a second where the environment names no speed, and the most that a person follows."""
LOOK_AHEAD = 60
"""Decisions of the dreams that choose the first start."""
BEGIN = 0.15
"""Fraction of the real episode after which its first dream begins."""
METERS = (
    ("spread", "Predicted spread", "standard deviation of the next z, root mean square"),
    ("end", "Chance of the end", "that this decision ends the episode"),
    ("disagreement", "Disagreement", "of the memories about the next z, standard deviation"),
)


def export(agent: str | Path, out: Path, seed: int = 0, real: bool = True) -> Path:
    """Write the page of an agent and return its path.

    Args:
        agent: folder, run folder, or name of a bundled agent.
        out: file to write.
        seed: of the real episode beside the dream.
        real: whether to record one; without its environment there is none.

    Raises:
        UserError: no such agent, a damaged one, or one that the page cannot dream.
    """
    opened = Agent.from_pretrained(agent)
    opened.vision.check_decoder()
    episode = None
    if real:
        try:
            env_id = envs.from_file(opened.env_id, find(agent) / CONFIG)
            episode = reality.play(opened, find(agent), env_id, seed)
        except UserError as error:
            print(f"note: the page shows no real episode: {error}", flush=True)
    return _write(opened, agent, out, episode)


def export_run(run: Path) -> Path | None:
    """Write the page of a run's agent beside its report, with an episode of the run's own.

    An agent that the page cannot dream has none: the reason is printed.
    """
    try:
        agent = Agent.from_pretrained(run)
        return _write(agent, run, run / PLAYER, reality.of_run(agent, run), "report.html")
    except UserError as error:
        (run / PLAYER).unlink(missing_ok=True)  # it would be of an earlier agent
        print(f"note: no dream player: {error}", flush=True)
        return None


def _write(
    agent: Agent, name: str | Path, out: Path, episode: reality.Recorded | None, report: str = ""
) -> Path:
    blob, residual = Blob(), _residual(agent, name)
    task, rate = _task_and_rate(agent, find(name) / CONFIG)
    keys, rest = controls(agent.action_spec, task)
    first, space, more = task.words.verb.partition(" ")
    acts = f"{first}s{space}{more}"
    facts: Tree = {
        "model": model(agent, residual, blob),
        "controls": keys,
        "rest": rest,
        "bars": bars(agent.action_spec, keys, task),
        "words": {"agent": task.words.agent, "verb": task.words.verb, "acts": acts},
        "first": _first(agent),
        "real": None,
    }
    if episode is not None and len(episode.actions) > 1:
        begin = int(BEGIN * len(episode.actions))
        facts["real"] = reality.record(agent, episode, blob) | {"begin": begin}
    values = {
        "title": f"{task.words.verb.capitalize()} inside the dream",
        "agent": _name(name),
        "env": envs.parse(agent.env_id).name,
        "report": report,
        "words": task.words,
        "meters": METERS if len(agent.memories) > 1 else METERS[:2],
        "rate": rate,
        "memories": len(agent.memories),
        "z": agent.z_dim,
        "real": f"{task.words.episode} {episode.seed}" if episode and facts["real"] else "",
        "about": _about(agent, name, residual, task),
        "facts": _json(facts),
        "blob": blob.text(),
    }
    atomic_write(out, render(values))
    return out


def _residual(agent: Agent, name: str | Path) -> MeanActor | None:
    """The residual that acts on top of the agent's C, where it has one."""
    if own_policy(name) != "residual":
        return None
    policy = PolicyFile.load(policy_path(name, "residual"), agent).policy
    assert isinstance(policy, MeanActor)
    return policy


def _task_and_rate(agent: Agent, config: Path) -> tuple[Task, float]:
    """The environment's task, and decisions a second: the real ones, unless nobody could follow.

    An environment that cannot be made here is known by its id alone.
    """
    with contextlib.suppress(UserError):
        with contextlib.closing(envs.make(envs.from_file(agent.env_id, config))) as env:
            real = float(env.metadata.get("render_fps") or 0) / agent.action_repeat
            return task_of(env), round(min(real, FASTEST_RATE), 1) if real else USUAL_RATE
    return named(None, agent.env_id), USUAL_RATE


def _name(agent: str | Path) -> str:
    """What the page calls an agent: no path of the machine that it was made on."""
    return Path(agent).resolve().name or str(agent)


@torch.inference_mode()
def _first(agent: Agent) -> int:
    """The start that the page opens with: the one whose dream returns most, early ends counted."""
    reward, starts = agent.to_dream()
    chosen = chosen_starts(len(starts))
    parts = starts.z[chosen], starts.h[0, chosen], starts.c[0, chosen]
    z, h, c = map(torch.from_numpy, parts)
    memory, state = agent.memories[0], MemoryState(h, c)
    total, generator = torch.zeros(len(chosen)), torch.Generator().manual_seed(0)
    alive = torch.ones(len(chosen))
    for _ in range(LOOK_AHEAD):
        action = agent.act(z, state.seen(agent.controller.carry))
        z, out, state = memory.dream(z, action, state, mixture_noise(z, generator))
        total += alive * reward.expected(out.reward)
        alive *= torch.sigmoid(-out.terminated_logit)
    return int(total.argmax())


def _about(agent: Agent, name: str | Path, residual: MeanActor | None, task: Task) -> str:
    """What the page is made of, in sentences."""
    cfg, memories = agent.memories[0].cfg, len(agent.memories)
    several = f"{memories} memories M" if memories > 1 else "one memory M"
    acts = "C with its residual" if residual is not None else "C"
    said = [
        f"The agent is {_name(name)}. Its V paints 64 × 64 pixels from {cfg.z_dim} numbers, and it "
        f"has {several} of {cfg.hidden_size} units.",
        f"{acts} acts, once in {agent.action_repeat} frames."
        if agent.action_repeat > 1
        else f"{acts} acts.",
    ]
    if others := len(other_members(name)):
        said.append(
            f"The {task.words.agent} is an ensemble of {others + 1}: here its first member acts, "
            "in its own dream; in the real episode all of them act."
        )
    return " ".join(said)


def _json(tree: Any) -> str:
    """JSON that no HTML parser takes for markup."""
    text = json.dumps(tree, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _template() -> jinja2.Template:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(STATIC),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return made.get_template("player.html.j2")


def render(values: Tree) -> str:
    """The page of these values: its style and its script are the only ones that a browser runs."""
    style = (STATIC / "player.css").read_text(encoding="utf-8")
    script = "".join((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS)
    kernel = base64.b64encode((STATIC / "kernel.wasm").read_bytes()).decode()
    hashes = {"style_hash": _hash(style), "script_hash": _hash(script)}
    return _template().render(**values, **hashes, style=style, script=script, kernel=kernel)


def _hash(text: str) -> str:
    """The digest of an inline source, as a Content-Security-Policy has it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
