"""Configurations as JSON, as hashes and as seeds.

Part of `worldmodels.runs`; import it from there.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np


def to_jsonable(obj: Any, tagged: bool = False) -> Any:
    """Reduce dataclasses, paths, enums, numpy values and containers to what JSON knows.

    Non-finite floats become the strings "NaN", "Infinity" and "-Infinity". A field with the
    metadata ``omit_default`` is left out at its default: a field that was added later then changes
    neither files nor hashes. A `TypeError` names anything else. ``tagged`` adds the class name to
    each dataclass.
    """
    if isinstance(obj, enum.Enum):
        return to_jsonable(obj.value, tagged)
    if isinstance(obj, np.ndarray | np.generic):
        return to_jsonable(obj.tolist(), tagged)
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else _NOT_FINITE[str(obj)]
    if obj is None or isinstance(obj, bool | int | str):
        return obj
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        fields = {
            f.name: to_jsonable(getattr(obj, f.name), tagged)
            for f in dataclasses.fields(obj)
            if not (f.metadata.get("omit_default") and getattr(obj, f.name) == f.default)
        }
        return {"__class__": type(obj).__qualname__, **fields} if tagged else fields
    if isinstance(obj, Mapping):
        return {
            str(to_jsonable(key, tagged)): to_jsonable(value, tagged) for key, value in obj.items()
        }
    if isinstance(obj, AbstractSet):
        return sorted(to_jsonable(item, tagged) for item in obj)
    if isinstance(obj, Sequence) and not isinstance(obj, bytes | bytearray):
        return [to_jsonable(item, tagged) for item in obj]
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    raise TypeError(f"cannot write a {type(obj).__name__} as JSON: {obj!r}")


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""JavaScript's names for numbers that JSON lacks."""


def config_hash(obj: Any) -> str:
    """SHA-256 (hex) of an object's canonical JSON, with the class names of dataclasses."""
    text = json.dumps(to_jsonable(obj, tagged=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) from names and numbers, the same on every machine.

    Different parts, such as (run_seed, "memory", epoch), give independent random numbers; 1 and
    "1" are different parts.
    """
    if not parts:
        raise ValueError("derive_seed needs at least one part")
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    words = np.random.SeedSequence(list(digest)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))
