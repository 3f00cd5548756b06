"""Training PPO by a recipe, in the real environment or in a dream: resumable, counted, measured.

Rollouts and updates are Stable-Baselines3's own (`collect_rollouts`, `train`); the loop around them
is here, because `learn` ties the learning rate to the frames of one call, which is wrong for a
resumed run.

At each checkpoint all environments begin new episodes, also in a run that is not interrupted. So a
killed run resumes bit-exactly from its last checkpoint, though no simulator can be saved; episodes
that are cut short are bootstrapped like any truncation.

What a resume needs is written by `worldmodels.runs.save_checkpoint`, not as Stable-Baselines3's zip
file, which holds pickles.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from baselines import drivers
from baselines.actions import UnitActions
from baselines.bookkeeping import Bookkeeping, inherit, open_run, selection_seeds
from baselines.models import build_model, rate
from baselines.policies import PixelPolicy
from baselines.recipes import Recipe
from baselines.settings import CAR_RACING, TrainConfig, home_of
from baselines.training_env import check_environment, make_training_env
from worldmodels import envs, evaluation, executors, runs
from worldmodels.envs import ActionSpec
from worldmodels.protocols import Policy, UserError


class FrameCounter(BaseCallback):
    """Adds up real frames and collects the returns of the episodes that end in a rollout."""

    def __init__(self) -> None:
        """Begin at nothing."""
        super().__init__()
        self.frames = 0
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "error" in info:  # see `Reporting`
                raise UserError(info["error"])
            self.frames += int(info.get("frames", 1))
            if "episode" in info:
                self.returns.append(float(info["episode"]["r"]))
        return True


def train(cfg: TrainConfig, recipe: Recipe | None = None) -> Path:
    """Train and return the run folder, with the selected policy in `agent/`, the last in `last/`.

    Args:
        cfg: what to train.
        recipe: in place of the one that ``cfg`` names.

    Raises:
        UserError: another configuration has the folder, a package is missing, or the loss is not
            finite; or an environment fails.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        # one thread is as fast for batches as small as those of the default
        torch.set_num_threads(1 if cfg.recipe == "default" else executors.usable_cores())
    recipe = recipe or cfg.resolved_recipe()
    cfg = dataclasses.replace(cfg, max_steps=cfg.longest())
    with runs.locked(cfg.folder):
        session = Session(cfg, recipe)
        try:
            while session.books.step < session.updates:
                session.learn()
                session.checkpoint()
        finally:
            session.env.close()
    return session.run.path


class Session:
    """One training at work."""

    def __init__(self, cfg: TrainConfig, recipe: Recipe) -> None:
        """Open the run folder and resume from its checkpoint."""
        self.cfg, self.recipe = cfg, recipe
        check_environment(cfg.home, cfg.max_steps, recipe.unit_actions)
        per_update = recipe.rollout * recipe.skip
        frames = cfg.frames or recipe.frames
        self.updates = math.ceil(frames / per_update)
        least = frames / 4 if recipe.unit_actions else math.inf
        self.every = max(1, round(min(cfg.checkpoint_frames, least) / per_update))
        settings = {
            "method": recipe.name,
            **dataclasses.asdict(cfg),
            "seed": cfg.own_seed,
            "recipe": recipe,
            "frames": frames,
            "out": cfg.folder,
            "env_id": cfg.env_id or CAR_RACING,
        }
        changeable = {"out", "device", "workers", "log", "agent", "run", "test_episodes"}
        same = [key for key in settings if key not in changeable]
        self.run = open_run(cfg.folder, settings, same, cfg.log)
        self.books = Bookkeeping()
        self.world = None if cfg.agent is None else self._world(cfg.agent)
        self.env = self._make_env()
        seed = runs.derive_seed(cfg.own_seed, "ppo") % 2**32
        self.model = build_model(recipe, self.env, seed, cfg.device)
        self.model.set_logger(Logger(None, []))
        self.model.ep_info_buffer, self.model.ep_success_buffer = deque(maxlen=1), deque(maxlen=1)
        self.probe = envs.make(self.env_id)
        if self.state_file.exists():
            self._load()
        self._restart()

    @property
    def state_file(self) -> Path:
        """What training resumes from."""
        return self.run.checkpoints / "state.safetensors"

    @property
    def env_id(self) -> str:
        """The real environment."""
        return self.cfg.home if self.world is None else home_of(self.world)

    def learn(self) -> None:
        """Rollouts and updates until the next checkpoint."""
        recipe, model, books = self.recipe, self.model, self.books
        target = min(self.updates, (books.step // self.every + 1) * self.every)
        text = f"{recipe.name}, update {target} of {self.updates}"
        with runs.progress(range((target - books.step) * recipe.rollout), text, "decisions") as bar:
            while books.step < target:
                began = time.perf_counter()
                # the fraction of this run's own budget that is left; the last update still learns
                model._current_progress_remaining = 1 - books.step / self.updates
                counter = FrameCounter()
                counter.init_callback(model)
                model.collect_rollouts(self.env, counter, model.rollout_buffer, recipe.n_steps)
                model.train()
                books.step += 1
                books.frames += counter.frames
                books.seconds += time.perf_counter() - began
                figures = self._log(counter)
                bar.advance(recipe.rollout, **figures)

    def _log(self, counter: FrameCounter) -> dict[str, float]:
        """Write a line of metrics; return what the progress bar shows."""
        values = {k.removeprefix("train/"): v for k, v in self.model.logger.name_to_value.items()}
        self.model.logger.dump(self.books.step)
        figures = {name: float(v) for name, v in values.items() if isinstance(v, float | int)}
        bad = [name for name, value in figures.items() if not math.isfinite(value)]
        if "loss" in bad:
            raise UserError(
                f"the loss of update {self.books.step} (frame {self.books.frames:,}) is "
                f"{figures['loss']}; lower the learning rate, or look at the rewards"
            )
        shown = {"return": float(np.mean(counter.returns))} if counter.returns else {}
        line = {"step": self.books.step, "frames": self.books.frames, **shown}
        line |= {"episodes": len(counter.returns), "seconds": self.books.seconds}
        names = ("loss", "value_loss", "policy_gradient_loss", "approx_kl", "clip_fraction", "std")
        line |= {name: figures[name] for name in names if name in figures and name not in bad}
        line["learning_rate"] = rate(self.recipe, self.model._current_progress_remaining)
        self.run.log("ppo", **line)
        return {**shown, "loss": figures.get("loss", math.nan)}

    def checkpoint(self) -> None:
        """Evaluate and save the policy, save what a resume needs, begin new episodes."""
        books, recipe = self.books, self.recipe
        ways = (False, True) if recipe.unit_actions else (False,)
        results = evaluation.evaluate_many(
            [self.policy(sampled) for sampled in ways],
            self.env_id,
            selection_seeds(self.cfg.evaluate_episodes),
            workers=1,
            names=[recipe.name] * len(ways),
            max_steps=self.cfg.max_steps,
        )
        result = max(results, key=lambda result: result.mean)
        for other in (other for other in results if other is not result):
            books.count("selection", other.frames, f"select/{books.step:06d}/other")
        facts: dict[str, Any] = {"seed": self.cfg.own_seed, "method": recipe.name}
        facts |= {"sampled": True} if result is not results[0] else {}
        is_best = books.measured(result, "dream" if self.world else "model_free")
        point = books.curve[-1]
        self.run.log("evaluation", **dataclasses.asdict(point))
        kept = [self.run.checkpoints / f"{books.step:06d}", self.run.path / "last"]
        for folder in [*kept, self.run.agent] if is_best else kept:
            drivers.save_driver(
                folder,
                self.model.policy,
                recipe,
                self.probe,
                env_id=self.env_id,
                world=self.world,
                facts={**facts, "selection": point},
            )
        self._save()
        books.publish(self.run)
        self._restart()

    def policy(self, sampled: bool = False) -> Policy:
        """The current policy, of its mode or `sampled`."""
        if self.recipe.pixels is not None:
            shape = self.probe.observation_space.shape
            spec = ActionSpec.from_space(self.probe.action_space)
            actions = UnitActions(spec) if self.recipe.unit_actions else None
            return PixelPolicy(self.model.policy, self.recipe.pixels, "", shape, actions, sampled)
        from baselines.dream import drive_by

        assert self.world is not None
        tensors = {name: p.cpu() for name, p in self.model.policy.named_parameters()}
        return drive_by(self.recipe, tensors, self.world)

    def _world(self, agent: Path) -> Path:
        """The dreaming agent, copied into the run folder, and its frames in the books."""
        from baselines.dream import copy_agent

        inherit(self.books, agent)
        return copy_agent(agent, self.run.path / "world")

    def _make_env(self) -> VecEnv:
        if self.world is None:
            cfg = self.cfg
            return make_training_env(
                self.recipe, cfg.home, cfg.own_seed, workers=cfg.workers, max_steps=cfg.max_steps
            )
        from baselines.dream import make_dream_env

        return make_dream_env(self.recipe, self.world, self.cfg.horizon)

    def _restart(self) -> None:
        """Begin episodes that depend on the run's seed and the number of the update alone."""
        if self.world is None:
            self.env.env_method("begin", self.books.step)
        else:
            seed = runs.derive_seed(self.cfg.own_seed, "dream", self.books.step)
            self.env.unwrapped.seed(seed % 2**32)
        self.model._last_obs = self.env.reset()  # type: ignore[assignment]  # no dict or tuple here
        self.model._last_episode_starts = np.ones(self.env.num_envs, np.bool_)

    def _save(self) -> None:
        """Write the state that a resume needs."""
        name, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
        state = {
            "policy": self.model.policy.state_dict(),
            "optimizer": self.model.policy.optimizer.state_dict(),
            "num_timesteps": self.model.num_timesteps,
            "updates": _updates(self.model),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if self.cfg.device == "cuda" else None,
            "numpy": [str(name), keys, int(place), int(has_gauss), float(gauss)],
            "scale": _scale(self.env),
            "books": self.books.to_state(),
        }
        runs.save_checkpoint(self.state_file, state)

    def _load(self) -> None:
        state = runs.load_checkpoint(self.state_file)
        self.model.policy.load_state_dict(state["policy"])
        self.model.policy.optimizer.load_state_dict(state["optimizer"])
        self.model.num_timesteps = state["num_timesteps"]
        self.model._n_updates = state["updates"]
        torch.set_rng_state(state["torch"])
        if self.cfg.device == "cuda" and state.get("cuda") is not None:
            torch.cuda.set_rng_state(state["cuda"])
        np.random.set_state(tuple(state["numpy"]))
        if isinstance(self.env, VecNormalize):
            rms = self.env.ret_rms
            rms.mean, rms.var, rms.count = (np.float64(v) for v in state["scale"])  # type: ignore[assignment]  # typed as arrays, used as numbers
        self.books = Bookkeeping.from_state(state["books"])
        self.books.publish(self.run)


def _updates(model: OnPolicyAlgorithm) -> int:
    return int(getattr(model, "_n_updates", 0))


def _scale(env: VecEnv) -> list[float]:
    """Mean, variance and count of the running statistics of returns; empty without them."""
    if not isinstance(env, VecNormalize):
        return []
    rms = env.ret_rms
    return [float(rms.mean), float(rms.var), float(rms.count)]
