"""Pictures and films of a finished run, for its report."""

from __future__ import annotations

from pathlib import Path

from worldmodels.agent import Agent
from worldmodels.evaluation import EvaluationResult


def film(run: Path, env_id: str, result: EvaluationResult) -> None:
    """Film the best, the median and the worst test episode beside what V and M make of them."""
    Agent.from_pretrained(run / "agent")
