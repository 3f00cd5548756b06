"""How good a driver is in the real environment: policies x seeds, episode by episode."""

from worldmodels.evaluation.policies import (
    AgentParameters,
    PolicySpec,
    RandomDriver,
    build_behaviour,
    describe,
)
from worldmodels.evaluation.records import EpisodeRecord, EvaluationResult
from worldmodels.evaluation.run import GROUP_SIZE, evaluate, evaluate_many, one_thread
from worldmodels.evaluation.statistics import Summary, bootstrap_interval, summarize

__all__ = [
    "GROUP_SIZE",
    "AgentParameters",
    "EpisodeRecord",
    "EvaluationResult",
    "PolicySpec",
    "RandomDriver",
    "Summary",
    "bootstrap_interval",
    "build_behaviour",
    "describe",
    "evaluate",
    "evaluate_many",
    "one_thread",
    "summarize",
]
