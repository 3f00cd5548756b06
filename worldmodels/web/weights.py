"""An agent's V, M and C as the page's engine (`static/engine.js`) reads them.

Matrices stand as (inputs, outputs), so that a row of numbers is multiplied from the left.
"""

from __future__ import annotations

import base64
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worldmodels.agent import Agent
from worldmodels.controller import linear
from worldmodels.memory.interface import Memory
from worldmodels.memory.mdn_rnn import MDNRNN
from worldmodels.memory.rewards import GAIN
from worldmodels.planning.networks import C_EDGE, Actor
from worldmodels.planning.plan import LEAD
from worldmodels.policies.learned import MeanActor
from worldmodels.protocols import UserError
from worldmodels.vision.vae import Spread

Tree: TypeAlias = dict[str, Any]
"""What becomes JSON; tensors in it are places in the `Blob`."""
MOST_STARTS = 24
"""Recorded states that a page offers."""


class Blob:
    """All tensors of a page, one after the other, little-endian."""

    def __init__(self) -> None:
        """Begin without any."""
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, array: NDArray[Any] | Tensor, half: bool = True) -> Tree:
        """Append an array as float16, or as float32; return its place.

        Raises:
            UserError: a number that is not finite, or too large for float16.
        """
        values = np.asarray(array.detach() if isinstance(array, Tensor) else array)
        with np.errstate(over="ignore"):
            data = np.ascontiguousarray(values, "<f2" if half else "<f4")
        if not np.isfinite(data).all():
            raise UserError(
                f"the agent has weights that are not finite in {'float16' if half else 'float32'}; "
                "take another one"
            )
        place = {"at": self._size, "shape": list(data.shape), "half": half}
        self._parts.append(data.tobytes() + b"\0" * (-data.nbytes % 4))
        self._size += len(self._parts[-1])
        return place

    def text(self) -> str:
        """Everything in base64."""
        return base64.b64encode(b"".join(self._parts)).decode()


def model(agent: Agent, residual: MeanActor | None, blob: Blob) -> Tree:
    """All that a dream of this agent needs, with the residual that acts on top of its C.

    Raises:
        UserError: the agent cannot dream, or its M is of a kind that the page does not know.
    """
    agent.vision.check_decoder()
    reward, recorded = agent.to_dream()
    recorded.check(agent.memories)
    spec, cfg = agent.action_spec, agent.memories[0].cfg
    return {
        "sizes": {"z": cfg.z_dim, "action": cfg.action_size, "h": cfg.hidden_size},
        "mixtures": cfg.mixtures,
        "floor": cfg.sigma_floor,
        "ceiling": cfg.sigma_ceiling,
        "residual": cfg.residual,
        "reward": {
            "kind": reward.kind,
            "base": reward.base,
            "event": reward.event_value,
            "most": reward.most,
            "scale": reward.scale,
            "shift": reward.shift,
            "gain": GAIN,
            "bins": reward.bins.tolist() if reward.kind == "two_hot" else [],
        },
        "ends": {"rule": agent.ends.termination, "threshold": agent.ends.termination_threshold},
        "action": {
            "discrete": spec.kind == "discrete",
            "whole": spec.integer,
            "low": list(spec.low),
            "high": list(spec.high),
        },
        "repeat": agent.action_repeat,
        "decoder": decoder(agent, blob),
        "memories": [memory_weights(memory, blob) for memory in agent.memories],
        "policy": policy(agent, residual, blob),
        "starts": starts(agent, blob),
    }


def decoder(agent: Agent, blob: Blob) -> Tree:
    """V's decoder with its first two layers as one; pixels before channels."""
    vision = agent.vision.joined()
    first, *rest = vision.check_decoder()
    assert isinstance(first, Spread)
    layers = [
        {
            "w": blob.add(first.weight.detach().permute(0, 2, 3, 1).flatten(1)),
            "b": blob.add(first.bias.detach().permute(1, 2, 0).flatten(), half=False),
            "kernel": first.bias.shape[1],
        }
    ]
    for layer in rest:
        if not isinstance(layer, nn.ConvTranspose2d):
            continue
        weight = layer.weight.permute(0, 2, 3, 1).flatten(1)
        kernel = layer.kernel_size[0]
        layers.append({"w": blob.add(weight), "b": blob.add(_bias(layer), False), "kernel": kernel})
    found: Tree = {"layers": layers}
    if vision.cfg.standardized:
        found["mean"] = blob.add(vision.mean.permute(1, 2, 0))
        found["std"] = float(vision.std)
    return found


def _bias(layer: nn.ConvTranspose2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias.detach()


def memory_weights(memory: Memory, blob: Blob) -> Tree:
    """An MDN-RNN as two matrices: [z, a, h] to the LSTM's gates, and h to all heads."""
    if not isinstance(memory, MDNRNN):
        raise UserError(
            f"the dream player knows the MDN-RNN (memory.kind lstm); this agent's M is a "
            f"{type(memory).__name__}"
        )
    weight_ih, weight_hh, bias, frozen = memory.lstm.all_weights[0]
    heads = (memory.mixture, memory.reward, memory.terminated)
    return {
        "gates": blob.add(torch.cat((weight_ih, weight_hh), dim=1).T),
        "gates_bias": blob.add(bias + frozen, half=False),
        "heads": blob.add(torch.cat([head.weight for head in heads]).T),
        "heads_bias": blob.add(torch.cat([head.bias for head in heads]), half=False),
    }


def policy(agent: Agent, residual: MeanActor | None, blob: Blob) -> Tree:
    """C, and the residual on top of it where it acts."""
    cfg = agent.controller
    found: Tree = {"inputs": cfg.inputs, "net": _controller(agent, blob)}
    if cfg.choices:
        found |= {"rule": "thresholds", "choices": list(cfg.choices)}
    elif cfg.discrete:
        found["rule"] = "argmax"
    else:
        edges = linear.affine(cfg, torch.float32, torch.device("cpu")).tolist()
        found |= {"rule": "numbers", "edges": edges, "whole": cfg.squash[0] == "whole"}
    if residual is not None:
        found["residual"] = _residual(residual, blob)
    return found


def _controller(agent: Agent, blob: Blob) -> list[Tree]:
    """C's layers; the standardisation of its inputs is folded into the first one."""
    cfg, at, layers = agent.controller, 0, list[Tree]()
    width = linear.num_inputs(cfg, agent.z_dim, agent.h_dim)
    for outputs in filter(None, (cfg.hidden, cfg.outputs)):
        end = at + outputs * width
        weight = agent.parameters[at:end].reshape(outputs, width)
        bias = agent.parameters[end : end + outputs]
        if at == 0 and agent.input_stats is not None:
            weight = weight / agent.input_stats.std.numpy()
            bias = bias - weight @ agent.input_stats.mean.numpy()
        layers += [{"kind": "tanh"}] * (at > 0) + [_linear(weight, bias, blob)]
        at, width = end + outputs, outputs
    return layers


def _linear(weight: NDArray[Any], bias: NDArray[Any], blob: Blob) -> Tree:
    return {"kind": "linear", "w": blob.add(weight.T, False), "b": blob.add(bias, False)}


def _residual(mean: MeanActor, blob: Blob) -> Tree:
    first = mean.actors[0]
    return {
        "bound": first.cfg.residual,
        "edge": C_EDGE,
        "lead": LEAD,
        "low": first.low.tolist(),
        "high": first.high.tolist(),
        "nets": [_actor(actor, blob) for actor in mean.actors],
    }


def _actor(actor: Actor, blob: Blob) -> list[Tree]:
    """The body of an actor that gives the means; its input's components go into the first layer."""
    found: list[Tree] = []
    layers = list(actor.body)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            weight, bias = (part.detach().double().numpy() for part in (layer.weight, layer.bias))
            if layer is layers[0] and not actor.inputs.all:
                weight = weight @ actor.inputs.analysis.double().numpy()
                bias = bias - weight @ actor.inputs.mean.double().numpy()
            if layer is layers[-1]:
                weight, bias = (part[: len(actor.low)] for part in (weight, bias))
            found.append(_linear(weight, bias, blob))
        elif isinstance(layer, nn.LayerNorm):
            gain, shift = blob.add(layer.weight, False), blob.add(layer.bias, False)
            found.append({"kind": "norm", "gain": gain, "shift": shift, "eps": layer.eps})
        else:
            found.append({"kind": "silu"})
    return found


def starts(agent: Agent, blob: Blob) -> Tree:
    """Recorded states, evenly spaced among all: z (S, Z), h and c (M, S, H)."""
    _, recorded = agent.to_dream()
    chosen = chosen_starts(len(recorded))
    parts = recorded.z[chosen], recorded.h[:, chosen], recorded.c[:, chosen]
    return {
        "count": len(chosen),
        **{name: blob.add(part) for name, part in zip("zhc", parts, strict=True)},
    }


def chosen_starts(count: int) -> NDArray[np.int64]:
    """Indices of the recorded states that a page offers, of ``count``."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_STARTS)).round().astype(np.int64))
