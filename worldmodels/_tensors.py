"""Files of tensors (safetensors), read with every number checked: the one reader of all stages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from worldmodels._files import parse_json, read_regular
from worldmodels._shapes import check
from worldmodels.config import show
from worldmodels.protocols import UserError

N = TypeVar("N", bound=nn.Module)

FACTS = "worldmodels"
"""Key of our own facts, as JSON, in a file's metadata."""


class TensorFile(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]
    digest: str
    """SHA-256 (hex) of the file"""
    text: str
    """facts as JSON; empty where there are none"""


def read_tensors(path: Path, remedy: str, finite: bool = True) -> TensorFile:
    """Read a safetensors file.

    Args:
        path: a regular file.
        remedy: what to do where it is damaged, for the error.
        finite: refuse numbers that are not finite.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, or has numbers that are not finite.
    """
    data = read_regular(path)
    if data[:4] == b"PK\x03\x04":
        raise UserError(f"{path} is a pickle of an earlier version, which is not read; {remedy}")
    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{path} is damaged ({reason[:200]}); {remedy}") from error
    if finite:
        require_finite(tensors, path, remedy)
    header = parse_json(
        data[8 : 8 + int.from_bytes(data[:8], "little")], f"{path} is damaged ({{}}); {remedy}"
    )
    text = (header.get("__metadata__") or {}).get(FACTS, "")
    return TensorFile(tensors, hashlib.sha256(data).hexdigest(), text)


def read_facts(file: TensorFile, kind: Any, path: Path, remedy: str) -> dict[str, Any]:
    """What a file says of itself.

    Raises:
        UserError: it says nothing, or something else than a `kind`.
    """
    if not file.text:
        raise UserError(f"{path} was not written by worldmodels: it has no facts; {remedy}")
    facts: dict[str, Any] = parse_json(file.text, f"{path} has damaged facts ({{}}); {remedy}")
    check(facts, kind, str(path))
    return facts


def require_finite(tensors: Mapping[str, Tensor], path: Path, remedy: str) -> None:
    """Refuse numbers that are not finite; whole numbers always are."""
    for name, tensor in tensors.items():
        if tensor.is_complex() or not torch.isfinite(tensor.float()).all():
            raise UserError(
                f"{path}: tensor {show(name)} has numbers that are not finite; {remedy}"
            )


def pick(
    tensors: Mapping[str, Tensor], names: Iterable[str], path: Path, remedy: str
) -> list[Tensor]:
    """Some of the tensors, in this order.

    Raises:
        UserError: one is missing.
    """
    for name in names:
        if name not in tensors:
            raise UserError(f"{path} lacks the tensor {name!r}; {remedy}")
    return [tensors[name] for name in names]


def require_shape(found: Tensor, wanted: tuple[int, ...], name: str, path: Path) -> None:
    """Refuse a tensor of another shape than its file's facts need."""
    if found.shape != wanted:
        raise UserError(
            f"{path}: tensor {name!r} has shape {tuple(found.shape)}, but its configuration needs "
            f"{wanted}"
        )


def filled(make: Callable[[], N], tensors: Mapping[str, Tensor], path: Path, remedy: str) -> N:
    """A network with the weights of a file.

    The shapes are compared before the network is made, since a damaged configuration can ask for
    more memory than there is.

    Raises:
        UserError: a tensor is missing, of another shape, or not finite.
    """
    with torch.device("meta"):
        wanted = make().state_dict()
    if unknown := [name for name in tensors if name not in wanted]:
        raise UserError(f"{path} has the unknown tensor {show(unknown[0])}; {remedy}")
    for name, found in zip(wanted, pick(tensors, wanted, path, remedy), strict=True):
        require_shape(found, tuple(wanted[name].shape), name, path)
    require_finite(tensors, path, remedy)
    network = make()
    network.load_state_dict({name: tensors[name] for name in wanted})
    return network
