"""Files of tensors, without pickle: safetensors with facts as JSON in their metadata.

`read_tensors`, `read_facts` and `filled` read any safetensors file and check every number.
`save_checkpoint` and `load_checkpoint` keep nested containers of tensors, arrays and plain values
exactly: tensors as they are, the rest as JSON in a header with a kind, a schema and a digest of
everything. Such a file cannot run code, and a changed bit is detected.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from worldmodels._files import atomic_write, parse_json, read_regular
from worldmodels._jsonable import to_jsonable
from worldmodels._shapes import check
from worldmodels.config import show
from worldmodels.protocols import UserError

N = TypeVar("N", bound=nn.Module)

FACTS = "worldmodels"
"""Key of our own facts, as JSON, in a file's metadata."""

SCHEMA = 1
"""Layout of checkpoints; a reader refuses others."""

REMEDY = "delete it and run the stage again"


class TensorFile(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]
    digest: str
    """SHA-256 (hex) of the file"""
    text: str
    """facts as JSON; empty where there are none"""


class _Header(TypedDict):
    kind: str
    schema: int
    state: dict[str, Any]


def read_tensors(path: Path, remedy: str, finite: bool = True) -> TensorFile:
    """Read a safetensors file; ``remedy`` ends the error of a damaged one.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, or not ``finite``.
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
    """The facts in a file's metadata; `UserError` unless they are of type `kind`."""
    if not file.text:
        raise UserError(f"{path} was not written by worldmodels: it has no facts; {remedy}")
    facts: dict[str, Any] = parse_json(file.text, f"{path} has damaged facts ({{}}); {remedy}")
    check(facts, kind, str(path))
    return facts


def require_finite(tensors: Mapping[str, Tensor], path: Path, remedy: str) -> None:
    """Refuse tensors with numbers that are not finite."""
    for name, tensor in tensors.items():
        if tensor.is_complex() or not torch.isfinite(tensor.float()).all():
            raise UserError(
                f"{path}: tensor {show(name)} has numbers that are not finite; {remedy}"
            )


def pick(
    tensors: Mapping[str, Tensor], names: Iterable[str], path: Path, remedy: str
) -> list[Tensor]:
    """Some of the tensors, in this order; `UserError` names the first that is missing."""
    for name in names:
        if name not in tensors:
            raise UserError(f"{path} lacks the tensor {name!r}; {remedy}")
    return [tensors[name] for name in names]


def require_shape(found: Tensor, wanted: tuple[int, ...], name: str, path: Path) -> None:
    """Refuse a tensor of another shape than ``wanted``."""
    if found.shape != wanted:
        raise UserError(
            f"{path}: tensor {name!r} has shape {tuple(found.shape)}, but its configuration needs "
            f"{wanted}"
        )


def filled(make: Callable[[], N], tensors: Mapping[str, Tensor], path: Path, remedy: str) -> N:
    """A network with the weights of a file; `UserError` names a tensor that does not fit.

    Shapes are compared before the network is made: a damaged configuration can ask for more memory
    than there is.
    """
    with torch.device("meta"):  # the weights come from the file: draw none
        network = make()
    wanted = network.state_dict()
    if unknown := [name for name in tensors if name not in wanted]:
        raise UserError(f"{path} has the unknown tensor {show(unknown[0])}; {remedy}")
    state = {}
    for name, found in zip(wanted, pick(tensors, wanted, path, remedy), strict=True):
        require_shape(found, tuple(wanted[name].shape), name, path)
        state[name] = found.to(wanted[name].dtype, copy=True)
    require_finite(state, path, remedy)
    network.load_state_dict(state, assign=True)
    return network


def save_checkpoint(path: str | Path, state: Mapping[str, Any], kind: str = "checkpoint") -> None:
    """Write tensors, numpy arrays, numbers, strings and containers of them, atomically.

    Types, dtypes, keys and the memory order of arrays (which changes rounding) are kept exactly.
    The header holds the ``kind`` of file. A `TypeError` names the place of any other object.
    """
    tensors: dict[str, Tensor] = {}
    packed = _pack(dict(state), tensors, "state")
    text = json.dumps({"kind": kind, "schema": SCHEMA, "state": packed}, allow_nan=False)
    header = json.dumps({"text": text, "sha256": _digest(text, tensors)})
    atomic_write(path, save(tensors, {FACTS: header}))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU; `UserError` for a missing or damaged file."""
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

    Strings, bools, None, lists and 64-bit integers stay as they are; everything else becomes an
    object whose one key names its type.
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
    """An array that torch can hold: in the machine's byte order, without negative strides."""
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
    readers: dict[str, Callable[[Any], Any]] = {
        "dict": lambda items: {key: _unpack(inner, tensors) for key, inner in items},
        "tuple": lambda items: tuple(_unpack(inner, tensors) for inner in items),
        "tensor": lambda where: _take(where, tensors),
        "array": lambda where: _take(where, tensors).numpy(),
        "scalar": lambda where: _take(where, tensors).numpy()[0],
        "bytes": bytes.fromhex,
        "int": int,
        "float": float,
    }
    return readers[kind](held)


def file_of_tensors(tensors: Mapping[str, Tensor], kind: str, schema: int, **facts: Any) -> bytes:
    """A safetensors file of named tensors, for other programs too, with facts in its header.

    ``schema`` is the layout of the names and facts of this ``kind`` of file.
    """
    header = json.dumps(to_jsonable({"schema": schema, "kind": kind, **facts}))
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, {FACTS: header})


def weights_digest(*networks: nn.Module) -> str:
    """SHA-256 (hex) of the names and weights of some networks, in order."""
    digest = hashlib.sha256()
    for network in networks:
        for name, tensor in network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
