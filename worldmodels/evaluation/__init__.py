"""Returns of policies in the real environment: policies x seeds, episode by episode."""

from worldmodels.evaluation.policies import AgentParameters, PolicySpec
from worldmodels.evaluation.run import EvaluationResult, evaluate, evaluate_many
from worldmodels.evaluation.statistics import Summary, bootstrap_interval, summarize

__all__ = [
    "AgentParameters",
    "EvaluationResult",
    "PolicySpec",
    "Summary",
    "bootstrap_interval",
    "evaluate",
    "evaluate_many",
    "summarize",
]
