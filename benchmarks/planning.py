"""Speed of planning: CEM beside the dream engine's own speed, and milliseconds per decision.

    python benchmarks/planning.py [--samples 256] [--particles 4] [--json FILE]

M has the paper's sizes and is untrained: the arithmetic is the same. Rounds of CEM and of the bare
engine alternate, and the best of each counts; rates per core-second are disturbed least by other
work on the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from worldmodels.agent import Agent
from worldmodels.controller.linear import ControllerConfig, num_parameters
from worldmodels.dream.starts import DreamStarts
from worldmodels.dream.world import Act
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.rewards import RewardModel
from worldmodels.planning import planners
from worldmodels.planning.objective import Belief
from worldmodels.planning.plan import ObjectiveConfig
from worldmodels.planning.planners import PlanningConfig
from worldmodels.planning.sampling import CEMConfig
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.runs import machine, write_json
from worldmodels.tasks.car_racing import CAR_RACING
from worldmodels.vision.vae import ConvVAE, VAEConfig

SHARE = 0.6
"""Of the engine's own speed that CEM must reach."""


@dataclass(frozen=True)
class Args:
    """What to measure."""

    samples: int = 256
    """plans per iteration of CEM"""
    particles: int = 4
    """dreams per plan"""
    horizon: int = 15
    """decisions per plan"""
    iterations: int = 4
    """of CEM"""
    rounds: int = 5
    """measurements, of which the best counts"""
    threads: int = 0
    """0 takes as many as torch does"""
    json: Path | None = None
    """where to write the figures"""


def make_agent() -> Agent:
    """An untrained agent at the paper's sizes."""
    torch.manual_seed(0)
    spec = ActionSpec("box", 3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    controller = ControllerConfig.for_action_space(spec, CAR_RACING.squash)
    h = np.zeros((1, 1, 256), np.float32)
    memory = MDNRNN(MDNRNNConfig())
    torch.nn.init.constant_(memory.terminated.bias, -30.0)  # every dream has all of its steps
    return Agent(
        ConvVAE(VAEConfig()),
        [memory],
        controller,
        np.zeros(num_parameters(controller), np.float32),
        env_id="CarRacing-v3",
        frame_spec=FrameSpec(),
        action_spec=spec,
        reward_model=RewardModel("event", base=-0.1, event_value=3.4),
        starts=DreamStarts(np.zeros((1, 32), np.float32), h, h),
    )


def best_of(
    rounds: int, works: dict[str, Callable[[], float]]
) -> dict[str, tuple[float, float, float]]:
    """Best steps per second and per core-second, and fewest seconds, of each kind of work."""
    best = dict.fromkeys(works, (0.0, 0.0, np.inf))
    for work in works.values():
        work()  # compiles
    for _ in range(rounds):
        for name, work in works.items():
            wall, core = time.perf_counter(), time.process_time()
            steps = work()
            wall, core = time.perf_counter() - wall, time.process_time() - core
            old = best[name]
            best[name] = max(old[0], steps / wall), max(old[1], steps / core), min(old[2], wall)
    return best


def works_of(args: Args) -> dict[str, Callable[[], float]]:
    """CEM, the engine under the same number of dreams, and the other planners."""
    agent = make_agent()
    objective = ObjectiveConfig(horizon=args.horizon, particles=args.particles)
    cem = CEMConfig(samples=args.samples, iterations=args.iterations)
    assert agent.starts is not None
    belief = Belief(agent.starts.z[0], agent.starts.h[:, 0], agent.starts.c[:, 0])

    def planning(policy: PlanningPolicy) -> Callable[[], float]:
        def work() -> float:
            plan = policy.plan(belief, None, 0)
            return float(plan.samples * args.particles * args.horizon)

        return work

    cfg = PlanningConfig(objective, cem)
    policy = PlanningPolicy(agent, "cem", cfg)
    plans = np.random.default_rng(0).random((args.samples, args.horizon * 3), np.float32)

    def bare() -> float:
        def make_act(population: torch.Tensor) -> Act:
            action = population[:, None, :3].expand(-1, args.particles, -1).contiguous()
            return lambda z, h: action

        engine = policy.imagination.engine
        return float(sum(engine.rollout(make_act, plans, i).steps for i in range(args.iterations)))

    works = {"engine": bare, "cem": planning(policy)}
    for method in [*planners.PLANNERS][1:]:
        defaults = replace(planners.defaults(method), objective=objective)
        works[method] = planning(PlanningPolicy(agent, method, defaults))
    return works


def main(args: Args) -> None:
    """Measure and print."""
    if args.threads:
        torch.set_num_threads(args.threads)
    best = best_of(args.rounds, works_of(args))
    print(f"{machine()}")
    print(
        f"{'':10} {'steps/s':>10} {'of engine':>10} {'per core-second':>16} {'of engine':>10} "
        f"{'ms/decision':>12}"
    )
    wall, core, _ = best["engine"]
    for name, (rate, per_core, seconds) in best.items():
        shares = f"{rate:10,.0f} {rate / wall:10.0%} {per_core:16,.0f} {per_core / core:10.0%}"
        print(f"{name:10} {shares} {1000 * seconds:12.1f}")
    print(f"CEM should reach {SHARE:.0%} of the engine; gradient's steps go forward and back")
    if args.json is not None:
        options = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(args).items()}
        write_json(args.json, {"args": options, "best": best})


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
