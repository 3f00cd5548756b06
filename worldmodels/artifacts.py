"""Files of tensors and plain values, without pickle: one safetensors file with a header.

The tensors lie in the file as they are; everything else (names, numbers, lists, the shape of nested
dicts) is JSON in its metadata, with a kind, a schema, and a digest of all of it. Nothing in such a
file can run code, and no changed bit goes unseen. Part of `worldmodels.runs`; use it from there.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from worldmodels._files import atomic_write, parse_json
from worldmodels._shapes import check
from worldmodels._tensors import FACTS, read_facts, read_tensors
from worldmodels.protocols import UserError

SCHEMA = 1
"""Layout of the files; a reader refuses others."""

REMEDY = "delete it and run the stage again"


class _Header(TypedDict):
    kind: str
    schema: int
    state: dict[str, Any]


def save_checkpoint(path: str | Path, state: Mapping[str, Any], kind: str = "checkpoint") -> None:
    """Write tensors, numpy arrays, numbers, strings and containers of them, atomically.

    Types, dtypes, keys and the order of arrays in memory are kept exactly, since sums round by it.

    Args:
        path: the file.
        state: what `load_checkpoint` shall give back; no objects of other classes.
        kind: says in the file's header what it is.

    Raises:
        TypeError: an object of another class; the place of it is named.
        UserError: the disk is full or refuses the file.
    """
    tensors: dict[str, Tensor] = {}
    packed = _pack(dict(state), tensors, "state")
    text = json.dumps({"kind": kind, "schema": SCHEMA, "state": packed}, allow_nan=False)
    header = json.dumps({"text": text, "sha256": _digest(text, tensors)})
    atomic_write(path, save(tensors, {FACTS: header}))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU; no code can come from the file.

    Raises:
        UserError: the file is missing, truncated, damaged, or of another format.
    """
    source = Path(path)
    try:
        file = read_tensors(source, REMEDY, finite=False)
    except FileNotFoundError:
        raise UserError(f"checkpoint {source} does not exist") from None
    header = read_facts(file, dict, source, REMEDY)
    if header.keys() != {"text", "sha256"}:
        raise UserError(
            f"{source} has the format of an earlier version, which is not read; {REMEDY}"
        )
    text = header["text"]
    if not isinstance(text, str) or header["sha256"] != _digest(text, file.tensors):
        raise UserError(f"{source} is damaged; {REMEDY}")
    content = parse_json(text, f"{source} is damaged ({{}}); {REMEDY}")
    check(content, _Header, str(source))
    if content["schema"] != SCHEMA:
        raise UserError(f"{source} has schema {content['schema']}, not {SCHEMA}; {REMEDY}")
    try:
        state: dict[str, Any] = _unpack(content["state"], file.tensors)
    except (LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UserError(
            f"{source} is damaged ({error or type(error).__name__}); {REMEDY}"
        ) from error
    return state


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _pack(value: Any, tensors: dict[str, Tensor], place: str) -> Any:
    """A value as JSON; its tensors go into ``tensors``.

    Strings, bools, None, lists and 64-bit integers stand for themselves; everything else is an
    object with one key, which says what it is.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        items = [[_key(k, place), _pack(v, tensors, f"{place}[{k!r}]")] for k, v in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        inner = [_pack(v, tensors, f"{place}[{i}]") for i, v in enumerate(value)]
        return inner if isinstance(value, list) else {"tuple": inner}
    if isinstance(value, Tensor):
        return {"tensor": _put(value.detach().cpu(), tensors)}
    if isinstance(value, np.ndarray | np.number | np.bool_):
        array = value if isinstance(value, np.ndarray) else np.array([value])
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{place} is an array of {array.dtype}, not of numbers")
        kind = "array" if array is value else "scalar"
        return {kind: _put(torch.from_numpy(_native(array)), tensors)}
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else {"int": str(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    raise TypeError(f"{place} is of {type(value)}, which no checkpoint holds")


def _key(key: Any, place: str) -> str | int:
    if isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool) and -(2**63) <= key < 2**63:
        return key
    raise TypeError(f"{place} has the key {key!r}; only strings and integers are kept")


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """An array that torch can hold: in the machine's order of bytes, without negative strides."""
    if not array.dtype.isnative or any(stride < 0 for stride in array.strides):
        return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return array if array.flags.writeable else array.copy("K")


def _put(tensor: Tensor, tensors: dict[str, Tensor]) -> list[Any]:
    """Store a tensor as it lies in memory; return its name, and the order of its axes there."""
    strides = tensor.stride()
    axes = sorted(range(tensor.ndim), key=lambda axis: -strides[axis])
    name = str(len(tensors))
    tensors[name] = tensor.permute(axes).clone(memory_format=torch.contiguous_format)
    return [name, axes]


def _take(where: list[Any], tensors: Mapping[str, Tensor]) -> Tensor:
    name, axes = where
    return tensors[name].clone().permute([axes.index(axis) for axis in range(len(axes))])


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_pack` was given."""
    if isinstance(value, list):
        return [_unpack(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "dict":
        return {key: _unpack(inner, tensors) for key, inner in held}
    if kind == "tuple":
        return tuple(_unpack(inner, tensors) for inner in held)
    if kind == "tensor":
        return _take(held, tensors)
    if kind == "array":
        return _take(held, tensors).numpy()
    if kind == "scalar":
        return _take(held, tensors).numpy()[0]
    if kind == "bytes":
        return bytes.fromhex(held)
    return {"int": int, "float": float}[kind](held)
