"""Returns of policies in the real environment: policies x seeds, episode by episode."""

from worldmodels.evaluation.policies import (
    AgentParameters,
    ConstantPolicy,
    PolicySpec,
    constant_policies,
)
from worldmodels.evaluation.run import EvaluationResult, evaluate, evaluate_many
from worldmodels.evaluation.statistics import Summary, bootstrap_interval, summarize

__all__ = [
    "AgentParameters",
    "ConstantPolicy",
    "EvaluationResult",
    "PolicySpec",
    "Summary",
    "bootstrap_interval",
    "constant_policies",
    "evaluate",
    "evaluate_many",
    "summarize",
]
