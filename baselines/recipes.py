"""Recipes of the model-free baselines: every setting of a published training run, frozen.

A recipe's `source` says where its numbers come from, and which of them are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import gymnasium as gym

from baselines.pixels import PixelConfig
from baselines.shaping import ShapingConfig
from worldmodels.config import (
    AtLeast,
    Config,
    Count,
    Fraction,
    Limit,
    NotNegative,
    Positive,
    Size,
    SizeOrZero,
    Workers,
)
from worldmodels.envs import ActionSpec, FrameSpec
from worldmodels.policies.observations import ObservationShape
from worldmodels.protocols import UserError


@dataclass(frozen=True)
class Recipe(Config):
    """PPO (Schulman et al., arXiv:1707.06347) as Stable-Baselines3 takes it."""

    name: str
    """what results are filed under"""
    source: str
    """where the settings come from"""
    frames: Count
    """frames of the real environment that the source trains for, skipped ones counted"""
    algorithm: Literal["ppo", "recurrent-ppo"] = "ppo"
    """recurrent-ppo is of sb3-contrib"""
    policy: Literal["CnnPolicy", "CnnLstmPolicy", "MlpPolicy"] = "CnnPolicy"
    """the network: MlpPolicy sees [z, h] of a dream, the others see pixels"""
    pixels: PixelConfig | None = field(default_factory=PixelConfig)
    """from the environment's frames to the network's; None in a dream"""
    unit_actions: bool = field(default=False, metadata={"omit_default": True})
    """act in -1 to 1 and in choices from 0, whatever the environment's own action space"""
    shaping: ShapingConfig | None = None
    """changes of the reward in training, never in a test"""
    norm_reward: bool = False
    """divide rewards by the running standard deviation of the discounted return (training only)"""
    n_envs: Workers = 8
    """environments side by side"""
    n_steps: Count = 512
    """decisions of each environment between two updates"""
    batch_size: Annotated[int, AtLeast(1), Limit(10**6)] = 128
    """decisions in a minibatch"""
    n_epochs: Count = 10
    """passes over the decisions of an update"""
    gamma: Fraction = 0.99
    """discount"""
    gae_lambda: Fraction = 0.95
    """decay of generalised advantage estimation"""
    learning_rate: Positive = 1e-4
    """step of Adam at the start"""
    schedule: Literal["linear", "constant"] = "linear"
    """linear falls to 0 at the end of this run's own budget, whatever it is"""
    clip_range: Positive = 0.2
    """clipping of the probability ratio"""
    ent_coef: NotNegative = 0.0
    """weight of the entropy"""
    vf_coef: NotNegative = 0.5
    """weight of the value loss"""
    max_grad_norm: Positive = 0.5
    """clipping of the gradient"""
    use_sde: bool = False
    """state-dependent exploration (gSDE, arXiv:2005.05719) in place of independent noise"""
    sde_sample_freq: Annotated[int, AtLeast(-1), Limit(10**9)] = -1
    """decisions between two draws of its noise; -1 draws once an update"""
    log_std_init: float = 0.0
    """logarithm of the initial standard deviation of actions"""
    ortho_init: bool = True
    """orthogonal initial weights"""
    activation: Literal["gelu", "relu", "tanh"] = "relu"
    """between the layers after the convolutions"""
    net_arch: tuple[Size, ...] = ()
    """hidden layers after the convolutions, for policy and value each"""
    lstm_hidden_size: SizeOrZero = 0
    """units of the LSTM; 0 for none"""
    critic_lstm: bool = True
    """the value function has an LSTM of its own"""

    def _check(self) -> None:
        if self.rollout % self.batch_size:
            self.refuse(
                "batch_size",
                f"a divisor of n_envs * n_steps ({self.rollout}), or the last minibatch of each "
                "pass is a small one",
            )
        if (self.policy == "MlpPolicy") != (self.pixels is None):
            raise UserError(f"Recipe.policy is {self.policy}, but pixels is {self.pixels}")
        if (self.algorithm == "recurrent-ppo") != (self.lstm_hidden_size > 0):
            self.refuse("lstm_hidden_size", "above 0 with recurrent-ppo, and 0 with ppo")

    @property
    def skip(self) -> int:
        """Frames of the environment for each decision (in a dream: steps of M)."""
        return 1 if self.pixels is None else self.pixels.skip

    @property
    def rollout(self) -> int:
        """Decisions between two updates."""
        return self.n_envs * self.n_steps


@dataclass(frozen=True, kw_only=True)
class DriverConfig(Config):
    """What `config.json` says of a trained policy, as far as a reader needs it."""

    env_id: str
    recipe: Recipe
    observation_shape: ObservationShape | None = None
    action_spec: ActionSpec
    sha256: str
    world: str | None = None
    sampled: bool = False


_ZOO = "rl-baselines3-zoo, commit 22e3ff2 (April 2026), hyperparams"

ZOO = Recipe(
    name="ppo-zoo",
    source=f"{_ZOO}/ppo.yml, CarRacing-v3 (published: 154 on CarRacing-v0; none on v3)",
    frames=8_000_000,
    pixels=PixelConfig(skip=2, size=64, grey=True, stack=2),
    norm_reward=True,
    use_sde=True,
    sde_sample_freq=4,
    log_std_init=-2.0,
    ortho_init=False,
    activation="gelu",
    net_arch=(256,),
)

V3 = Recipe(
    name="ppo-v3",
    source=(
        "what was reported to help on CarRacing-v3: four frames, no skip, batches of 256, shaping "
        "in training only (657 to 868), a learning rate that falls (a constant 3e-4 peaks and "
        "regresses). Network and noise are Stable-Baselines3's defaults, rollouts and the scaling "
        f"of rewards those of {_ZOO}/ppo.yml; the weights of the shaping are ours"
    ),
    frames=4_000_000,
    pixels=PixelConfig(skip=1, size=64, grey=True, stack=4),
    shaping=ShapingConfig(),
    norm_reward=True,
    batch_size=256,
    learning_rate=3e-4,
)

RECURRENT = Recipe(
    name="recurrent-ppo",
    source=f"{_ZOO}/ppo_lstm.yml, CarRacing-v3 (published: 863 on CarRacing-v0; none on v3)",
    frames=4_000_000,
    algorithm="recurrent-ppo",
    policy="CnnLstmPolicy",
    pixels=PixelConfig(skip=1, size=64, grey=True, stack=2),
    norm_reward=True,
    use_sde=True,
    sde_sample_freq=4,
    log_std_init=-2.0,
    ortho_init=False,
    activation="gelu",
    lstm_hidden_size=128,
    critic_lstm=False,
)

DREAM = Recipe(
    name="ppo-dream",
    source="Stable-Baselines3's defaults for continuous control, with longer minibatches; ours",
    frames=4_000_000,
    policy="MlpPolicy",
    pixels=None,
    norm_reward=True,
    n_envs=64,
    n_steps=128,
    batch_size=1024,
    learning_rate=3e-4,
    log_std_init=-1.0,
    activation="tanh",
    net_arch=(64, 64),
)

CHOICES = Recipe(
    name="ppo",
    source=(
        f"frames, network, entropy and rollouts of {_ZOO}/ppo.yml, atari; minibatches of 64, ten "
        "epochs and clipping at 0.2 of its MiniGrid-DoorKey-5x5-v0, which has 100,000 steps where "
        "atari has ten million; colour, the scaling of rewards and the learning rate, twice "
        "atari's as the steps are few, are ours"
    ),
    frames=100_000,
    unit_actions=True,
    pixels=PixelConfig(grey=False),
    norm_reward=True,
    n_steps=128,
    batch_size=64,
    learning_rate=5e-4,
    ent_coef=0.01,
)

NUMBERS = replace(
    CHOICES,
    source=(
        "Stable-Baselines3's defaults for continuous control in 8 environments, with a learning "
        "rate that falls; four frames as in the zoo's atari; colour, actions from -1 to 1 and the "
        "scaling of rewards are ours"
    ),
    n_steps=256,
    learning_rate=3e-4,
    ent_coef=0.0,
)

RECIPES: dict[str, Recipe] = {"zoo": ZOO, "v3": V3, "recurrent": RECURRENT, "dream": DREAM}
"""Recipes for CarRacing and its dreams, by the name that the command line knows."""


def recipe_for(
    env: gym.Env[Any, Any],
    action_repeat: int = 1,
    frames: FrameSpec = FrameSpec(),  # noqa: B008  # frozen
) -> Recipe:
    """The recipe "default": PPO from the frames that V sees, in any environment.

    Args:
        env: with pixels, as `worldmodels.envs.make` makes it.
        action_repeat: steps of the environment that each action is held for.
        frames: the part of its frames that is seen.
    """
    discrete = isinstance(env.action_space, gym.spaces.Discrete)
    grey = (env.observation_space.shape or ())[2:] in ((), (1,))
    pixels = PixelConfig(skip=action_repeat, rows=frames.rows, crop=frames.crop, grey=grey)
    return replace(CHOICES if discrete else NUMBERS, pixels=pixels)
