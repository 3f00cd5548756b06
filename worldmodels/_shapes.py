"""What a JSON file must hold for its reader, said by a type.

Part of `worldmodels.runs`: `read_json(path, kind)`. A kind is anything of typing that JSON can
fill: `list[...]`, `dict[str, ...]`, unions, literals, numbers with the rules of
`worldmodels.config`, and `TypedDict` for objects. An object may have more fields than its type.
"""

from __future__ import annotations

import functools
import types
from typing import (
    Annotated,
    Any,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)
from typing import is_typeddict as _is_typeddict

from worldmodels.config import fault, show
from worldmodels.protocols import UserError


def check(value: Any, kind: Any, where: str, path: str = "") -> None:
    """Compare a value with a type.

    Args:
        value: what JSON was read as.
        kind: the type.
        where: the file.
        path: the value's place in it; empty for all of it.

    Raises:
        UserError: names the first field that is missing or is something else.
    """
    origin = get_origin(kind)
    if kind is Any:
        return None
    if origin in (NotRequired, Required):
        return check(value, get_args(kind)[0], where, path)
    if origin in (Union, types.UnionType):
        return _check_any(value, get_args(kind), where, path)
    plain = get_args(kind)[0] if origin is Annotated else kind
    if _is_typeddict(plain):
        return _check_fields(value, plain, where, path)
    if get_origin(plain) in (list, dict) or plain in (list, dict):
        return _check_items(value, plain, where, path)
    if must := fault(value, kind):
        raise _wrong(value, must, where, path)


def _check_any(value: Any, kinds: tuple[Any, ...], where: str, path: str) -> None:
    errors = []
    for kind in kinds:
        if kind is type(None):
            if value is None:
                return
            continue
        try:
            return check(value, kind, where, path)
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _check_fields(value: Any, kind: Any, where: str, path: str) -> None:
    _require(value, dict, where, path)
    place = f"{where}: {path}" if path else where
    hints = _fields(kind)
    lacking = [name for name, inner in hints.items() if name not in value and _needed(kind, inner)]
    if lacking:
        raise UserError(f"{place} lacks {', '.join(lacking)}")
    for name, inner in hints.items():
        if name in value:
            check(value[name], inner, where, f"{path}.{name}" if path else name)


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _needed(kind: Any, hint: Any) -> bool:
    """Whether an object must have it; `__required_keys__` misreads postponed annotations."""
    total: bool = kind.__total__
    return get_origin(hint) is Required or (total and get_origin(hint) is not NotRequired)


def _check_items(value: Any, kind: Any, where: str, path: str) -> None:
    inner = get_args(kind)
    if (get_origin(kind) or kind) is list:
        _require(value, list, where, path)
        for index, item in enumerate(value if inner else ()):
            check(item, inner[0], where, f"{path}[{index}]")
        return
    _require(value, dict, where, path)
    for name, item in value.items() if inner else ():
        check(item, inner[1], where, f"{path}[{show(name)}]")


def _require(value: Any, kind: type, where: str, path: str) -> None:
    if not isinstance(value, kind):
        raise _wrong(value, f"it must be {_NAMES[kind]}", where, path)


_NAMES: dict[type, str] = {dict: "a JSON object", list: "a list"}


def _wrong(value: Any, must: str, where: str, path: str) -> UserError:
    if path:
        return UserError(f"{where}: {path} is {show(value)}; {must}")
    return UserError(f"{where} holds {show(value)}; {must}")
