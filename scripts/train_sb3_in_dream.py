"""Train PPO of Stable-Baselines3 in an agent's dream, and measure it in the real environment.

    python scripts/train_sb3_in_dream.py --agent runs/demo/agent

Any algorithm for continuous or discrete actions takes PPO's place: it sees [z, h], as C does.
"""

import sys

import gymnasium as gym
import tyro
from stable_baselines3 import PPO

from worldmodels import Agent, cli, evaluation
from worldmodels.dream.sb3 import DreamVecEnv, LatentPredictor
from worldmodels.protocols import DEFAULT_AGENT


def main(
    agent: str = DEFAULT_AGENT, steps: int = 200_000, dreams: int = 16, episodes: int = 4
) -> None:
    """Learn for that many steps in that many dreams at once, then drive that many real episodes."""
    loaded = Agent.from_pretrained(agent)
    vector = gym.make_vec("worldmodels/Dream-v0", dreams, agent=loaded, horizon=250)
    ppo = PPO("MlpPolicy", DreamVecEnv(vector), n_steps=256, batch_size=512, seed=0, verbose=1)
    ppo.learn(steps)
    driver = loaded.with_policy(LatentPredictor(ppo))  # V, M and held actions are the agent's
    seeds = range(500_000, 500_000 + episodes)
    result = evaluation.evaluate(driver, loaded.env_id, seeds, workers=1)
    print(f"real return {result.mean:.1f}")


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: tyro.cli(main, description=__doc__)))
