"""What a JSON file must hold for its reader, said by a type.

Part of `worldmodels.runs`: `read_json(path, kind)`. A kind is anything of typing that JSON can
fill: `list[...]`, `dict[str, ...]`, unions, literals, numbers with the rules of
`worldmodels.config`, and `TypedDict` for objects. An object may have more fields than its type.
"""

from __future__ import annotations

import functools
import types
import typing
from typing import Annotated, Any, NotRequired, Required, Union, get_args, get_origin

from worldmodels.config import fault, show
from worldmodels.protocols import UserError

_hints = functools.cache(functools.partial(typing.get_type_hints, include_extras=True))


def check(value: Any, kind: Any, where: str, path: str = "") -> None:
    """Compare a value of the file ``where``, or of a place in it, with a type.

    Raises:
        UserError: names the first field that is missing or is something else.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return None
    if origin in (NotRequired, Required):
        return check(value, inner[0], where, path)
    if origin in (Union, types.UnionType):
        return _check_any(value, inner, where, path)
    plain = inner[0] if origin is Annotated else kind
    typed = typing.is_typeddict(plain)
    container = dict if typed else get_origin(plain) or plain
    if container not in _NAMES:
        must = fault(value, kind)
    else:
        must = None if isinstance(value, container) else f"it must be {_NAMES[container]}"
    if must:
        found = f"{where}: {path} is {show(value)}" if path else f"{where} holds {show(value)}"
        raise UserError(f"{found}; {must}")
    if typed:
        _check_fields(value, plain, where, path)
    elif container in _NAMES and get_args(plain):
        for key, item in value.items() if container is dict else enumerate(value):
            check(item, get_args(plain)[-1], where, f"{path}[{show(key)}]")


_NAMES: dict[Any, str] = {dict: "a JSON object", list: "a list"}


def _check_any(value: Any, kinds: tuple[Any, ...], where: str, path: str) -> None:
    errors = []
    for kind in kinds:
        if kind is type(None) and value is None:
            return
        if kind is not type(None):
            try:
                return check(value, kind, where, path)
            except UserError as error:
                errors.append(error)
    raise errors[0]


def _check_fields(value: dict[str, Any], kind: Any, where: str, path: str) -> None:
    hints = _hints(kind)
    if missing := [n for n, hint in hints.items() if n not in value and _needed(kind, hint)]:
        raise UserError(f"{where}: {path}".removesuffix(": ") + f" lacks {', '.join(missing)}")
    for name, hint in hints.items():
        if name in value:
            check(value[name], hint, where, f"{path}.{name}" if path else name)


def _needed(kind: Any, hint: Any) -> bool:
    """Whether an object must have it; `__required_keys__` misreads postponed annotations."""
    total: bool = kind.__total__
    return get_origin(hint) is Required or (total and get_origin(hint) is not NotRequired)
