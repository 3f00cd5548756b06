"""The stages: functions from a configuration and inputs to a result.

`worldmodels run`, the commands of single stages, studies and the numbered scripts call these, in
this order: collect, train_vision, encode, train_memory, evolve_controller, select, choose,
learn_residual, add_members, test, run_controls. A `StageContext` holds the seed of the run, from
which each stage derives its own, and where to resume and log.
"""

from worldmodels.stages.collection import by_agents, collect, exploration
from worldmodels.stages.context import StageContext, open_stage
from worldmodels.stages.controller import Candidates, evolve_again, evolve_controller
from worldmodels.stages.controls import remove_controls, run_controls
from worldmodels.stages.files import LatentsFile, MemoryFile, Source, VisionFile
from worldmodels.stages.learning import encode, train_memory, train_vision
from worldmodels.stages.selection import (
    Finalist,
    add_members,
    choose,
    confirm,
    learn_residual,
    select,
    test,
)

__all__ = ["Candidates", "Finalist", "LatentsFile", "MemoryFile", "Source", "VisionFile"]
__all__ += ["StageContext", "open_stage"]
__all__ += ["add_members", "by_agents", "choose", "collect", "confirm", "encode", "evolve_again"]
__all__ += ["evolve_controller", "exploration", "learn_residual", "remove_controls", "run_controls"]
__all__ += ["select", "test", "train_memory", "train_vision"]
