"""Train PPO of Stable-Baselines3 in an agent's dream, and measure it in the real environment."""

import sys

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3 import PPO

from worldmodels import Agent, cli, evaluation
from worldmodels.dream.sb3 import DreamVecEnv


class Taught:
    """What PPO has learnt, which sees [z, h] as C does, behind the agent's V and M."""

    def __init__(self, agent: Agent, ppo: PPO) -> None:  # noqa: D107
        self.agent, self.ppo, self.memory = agent, ppo, agent.memories[0]

    @torch.inference_mode()
    def predict(self, obs, state=None, episode_start=None, deterministic=False):  # type: ignore[no-untyped-def]  # noqa: D102
        z, _ = self.agent.encode(obs)
        state = state or self.memory.initial_state(len(z))
        action, _ = self.ppo.predict(np.hstack([z, state.h]), deterministic=deterministic)
        known = torch.from_numpy(self.agent.action_spec.encode(action))
        return action, self.memory.recurrence(z[:, None], known[:, None], state)[1]


def main(agent: str, steps: int = 200_000, dreams: int = 16, episodes: int = 4) -> None:
    """Learn for that many steps in that many dreams at once, then drive that many real episodes."""
    loaded = Agent.from_pretrained(agent)
    vector = gym.make_vec("worldmodels/CarRacingDream-v0", dreams, agent=loaded, horizon=300)
    ppo = PPO("MlpPolicy", DreamVecEnv(vector), n_steps=256, batch_size=512, seed=0, verbose=1)
    taught, seeds = Taught(loaded, ppo.learn(steps)), range(500_000, 500_000 + episodes)
    print(f"real return {evaluation.evaluate(taught, loaded.env_id, seeds, workers=1).mean:.1f}")


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: tyro.cli(main, description=__doc__)))
