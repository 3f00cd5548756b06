"""One setting that follows from what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """A setting that the episodes suggest."""

    setting: str
    """such as "dream.horizon" """
    value: Any
    reason: str
