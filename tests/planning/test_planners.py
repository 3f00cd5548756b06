"""Planners against Riccati's solution of the linear-quadratic problem, and against themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.planning.gradient import GradientConfig, GradientPlanner, adam, shortened
from worldmodels.planning.plan import Budget, Plan
from worldmodels.planning.sampling import CEM, MPPI, CEMConfig, MPPIConfig, coloured_noise
from worldmodels.protocols import UserError

X, A, T = 3, 2, 10
NONE = np.empty((0, T, A), np.float32)
GUESS = np.zeros((T, A), np.float32)


class LinearQuadratic:
    """x' = F x + G a with cost x'Qx + a'Ra a step, Q after the last; scores are minus the cost.

    Unrolled into one quadratic in the plan p: cost = p'Hp + 2 c'p + d.
    """

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.f = np.eye(X) + 0.15 * rng.standard_normal((X, X))
        self.g = rng.standard_normal((X, A)) / 2
        self.q, self.r = np.eye(X), 0.3 * np.eye(A)
        self.x0 = rng.uniform(-1, 1, X)
        self.low, self.high = np.full(A, -3, np.float32), np.full(A, 3, np.float32)
        h, c, d = np.kron(np.eye(T), self.r), np.zeros(T * A), 0.0
        free, forced = self.x0, np.zeros((X, T * A))  # x_t = free + forced @ p
        for t in range(T + 1):
            h, c, d = (
                h + forced.T @ self.q @ forced,
                c + forced.T @ self.q @ free,
                d + float(free @ free),
            )
            free, forced = self.f @ free, self.f @ forced
            forced[:, A * t : A * (t + 1)] += self.g if t < T else 0
        self.h, self.c, self.d = torch.from_numpy(h), torch.from_numpy(c), float(d)

    def returns(self, plans: Tensor) -> Tensor:
        p = plans.double().flatten(1)
        return -((p @ self.h * p).sum(1) + 2 * p @ self.c + self.d)

    def score(self, plans: NDArray[np.float32]) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = self.returns(torch.from_numpy(plans)).numpy()
        return scores

    def riccati_cost(self) -> float:
        """x0' P_0 x0 by the backward recursion."""
        p = self.q
        for _ in range(T):
            s = self.r + self.g.T @ p @ self.g
            k = np.linalg.solve(s, self.g.T @ p @ self.f)
            p = self.q + self.f.T @ p @ (self.f - self.g @ k)
        return float(self.x0 @ p @ self.x0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradient_planner_reaches_riccati_within_one_percent(seed: int) -> None:
    problem = LinearQuadratic(seed)
    planner = GradientPlanner(GradientConfig(iterations=400, clip_norm=0))
    plan = planner.plan(problem, GUESS, NONE, np.random.default_rng(0))
    optimum = problem.riccati_cost()
    assert optimum <= -plan.score + 1e-6
    assert -plan.score <= 1.01 * optimum


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "cfg",
    [
        CEMConfig(samples=500, iterations=60, min_std=0.002, momentum=0.3),
        CEMConfig(
            samples=500,
            iterations=60,
            min_std=0.002,
            momentum=0.3,
            beta=0.5,
            keep_elites=0.3,
            execute="best",
        ),
    ],
    ids=["cem", "icem"],
)
def test_cem_reaches_riccati_within_five_percent(cfg: CEMConfig, seed: int) -> None:
    problem = LinearQuadratic(seed)
    plan = CEM(cfg).plan(problem, GUESS, NONE, np.random.default_rng(seed))
    optimum = problem.riccati_cost()
    assert optimum <= -plan.score + 1e-6
    assert -plan.score <= 1.05 * optimum


def test_mppi_comes_near_riccati() -> None:
    problem = LinearQuadratic()
    cfg = MPPIConfig(samples=400, iterations=150, init_std=0.05, temperature=0.3, beta=0.5)
    plan = MPPI(cfg).plan(problem, GUESS, NONE, np.random.default_rng(0))
    assert problem.riccati_cost() <= -plan.score + 1e-6
    assert -plan.score <= 1.1 * problem.riccati_cost()


def planners() -> list[CEM | MPPI | GradientPlanner]:
    return [
        CEM(CEMConfig()),
        CEM(CEMConfig.icem()),
        MPPI(MPPIConfig()),
        GradientPlanner(GradientConfig()),
    ]


@pytest.mark.parametrize("planner", planners(), ids=["cem", "icem", "mppi", "gradient"])
class TestEveryPlanner:
    def test_the_same_seed_and_samples_give_the_same_plan(
        self, planner: CEM | MPPI | GradientPlanner
    ) -> None:
        problem = LinearQuadratic()
        first, again, other = (
            planner.plan(problem, GUESS, NONE, np.random.default_rng(seed)) for seed in (3, 3, 4)
        )
        np.testing.assert_array_equal(first.actions, again.actions)
        assert first.score == again.score
        assert first.samples == again.samples
        if not isinstance(planner, GradientPlanner):  # whose best start is the guess
            assert not np.array_equal(first.actions, other.actions)

    def test_the_score_is_the_plan_s_own_and_its_actions_lie_within_bounds(
        self, planner: CEM | MPPI | GradientPlanner
    ) -> None:
        problem = LinearQuadratic()
        problem.low, problem.high = np.array([[-0.1, 0.0], [0.1, 0.4]], np.float32)
        plan = planner.plan(problem, GUESS, NONE, np.random.default_rng(0))
        assert plan.score == pytest.approx(problem.score(plan.actions[None])[0], rel=1e-6)
        assert (plan.actions >= problem.low - 1e-6).all()
        assert (plan.actions <= problem.high + 1e-6).all()

    def test_a_budget_ends_the_search_early_but_not_before_a_plan(
        self, planner: CEM | MPPI | GradientPlanner
    ) -> None:
        cfg = dataclasses.replace(planner.cfg, budget_ms=1e-6, iterations=50)
        plan = type(planner)(cfg).plan(LinearQuadratic(), GUESS, NONE, np.random.default_rng(0))  # type: ignore[arg-type]
        assert plan.iterations == 1
        assert plan.actions.shape == (T, A)

    def test_a_perfect_candidate_is_not_lost(self, planner: CEM | MPPI | GradientPlanner) -> None:
        problem = LinearQuadratic()
        solver = GradientPlanner(GradientConfig(iterations=400, clip_norm=0))
        best = solver.plan(problem, GUESS, NONE, np.random.default_rng(0))
        known = planner.plan(problem, GUESS, best.actions[None], np.random.default_rng(0))
        blind = planner.plan(problem, GUESS, NONE, np.random.default_rng(0))
        if isinstance(planner, MPPI):
            assert known.score > blind.score
        else:
            assert known.score >= best.score - 1e-6


def test_adam_is_torch_s() -> None:
    u = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.Adam([u], lr=0.1)
    mine, first, second = torch.ones(3), torch.zeros(3), torch.zeros(3)
    for step in range(4):
        gradient = torch.tensor([1.0, -2.0, 0.1]) * (step + 1)
        u.grad = -gradient  # torch descends
        optimiser.step()
        direction, first, second = adam(gradient, first, second, step)
        mine = mine + 0.1 * direction
    torch.testing.assert_close(mine, u.detach())


def test_a_plan_without_a_finite_gradient_stands_still() -> None:
    gradient = torch.stack([torch.full((T, A), torch.nan), torch.ones(T, A)])
    clipped = shortened(gradient, 0.5)
    assert (clipped[0] == 0).all()
    assert clipped[1].norm() == pytest.approx(0.5, rel=1e-5)


def test_shifting_drops_the_first_action_and_repeats_the_last() -> None:
    actions = np.arange(T * A, dtype=np.float32).reshape(T, A)
    later = Plan(actions, 1.0, actions[None], 1, 1, 0.0).shifted()
    np.testing.assert_array_equal(later.actions[:-1], actions[1:])
    np.testing.assert_array_equal(later.actions[-1], actions[-1])
    np.testing.assert_array_equal(later.kept[0], later.actions)


@pytest.mark.parametrize("steps", [14, 15])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_noise_has_variance_one_and_its_colour(beta: float, steps: int) -> None:
    noise = coloured_noise(np.random.default_rng(0), (4000, steps, 2), beta)
    assert noise.shape == (4000, steps, 2)
    assert noise.var() == pytest.approx(1, abs=0.05)
    power = (np.abs(np.fft.rfft(noise, axis=1)) ** 2).mean((0, 2))[1 : steps // 2]
    frequency = np.fft.rfftfreq(steps)[1 : steps // 2]
    slope = np.polyfit(np.log(frequency), np.log(power), 1)[0]
    assert slope == pytest.approx(-beta, abs=0.15)


@given(limit=st.floats(0.01, 5), done=st.integers(1, 100))
def test_a_budget_always_allows_the_first_iteration(limit: float, done: int) -> None:
    assert Budget(limit).allows(0)
    assert Budget(0).allows(done)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CEMConfig(samples=1), r"CEMConfig\.samples is 1; it must be at least 2"),
        (
            lambda: CEMConfig(elite_fraction=0.0),
            r"CEMConfig\.elite_fraction is 0\.0; it must be above 0 and at most 1",
        ),
        (lambda: MPPIConfig(temperature=0), r"MPPIConfig\.temperature is 0; it must be above 0"),
        (lambda: GradientConfig(restarts=0), r"GradientConfig\.restarts is 0"),
    ],
)
def test_a_wrong_value_is_named(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()  # type: ignore[operator]
