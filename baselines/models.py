"""From a recipe to Stable-Baselines3's objects: the algorithm to train, the policy to act."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
)
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from baselines.recipes import Recipe
from worldmodels.protocols import UserError, install_extra

_ADAM = {"eps": 1e-5, "fused": True}
"""Stable-Baselines3's own epsilon; fused is the same step in one pass over the weights"""
_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


def contrib() -> Any:
    """The package sb3-contrib, an extra.

    Raises:
        UserError: it is not installed.
    """
    try:
        import sb3_contrib
    except ImportError as error:
        raise UserError(
            "RecurrentPPO needs the package sb3-contrib, which is not installed: "
            + install_extra("recurrent")
        ) from error
    return sb3_contrib


def policy_arguments(recipe: Recipe) -> dict[str, Any]:
    """What Stable-Baselines3 calls `policy_kwargs`."""
    arguments: dict[str, Any] = {
        "log_std_init": recipe.log_std_init,
        "ortho_init": recipe.ortho_init,
        "activation_fn": _ACTIVATIONS[recipe.activation],
    }
    if recipe.net_arch:
        layers = list(recipe.net_arch)
        arguments["net_arch"] = {"pi": layers, "vf": layers}
    if recipe.lstm_hidden_size:
        arguments["lstm_hidden_size"] = recipe.lstm_hidden_size
        arguments["enable_critic_lstm"] = recipe.critic_lstm
    return arguments


def rate(recipe: Recipe, remaining: float) -> float:
    """Learning rate where that fraction of the run's own budget remains."""
    return recipe.learning_rate * (remaining if recipe.schedule == "linear" else 1.0)


def build_model(recipe: Recipe, env: VecEnv, seed: int, device: str = "cpu") -> OnPolicyAlgorithm:
    """The algorithm, ready to be trained.

    Raises:
        UserError: it needs a package that is not installed.
    """
    kind = PPO if recipe.algorithm == "ppo" else contrib().RecurrentPPO
    model: OnPolicyAlgorithm = kind(
        recipe.policy,
        env,
        learning_rate=lambda remaining: rate(recipe, remaining),
        n_steps=recipe.n_steps,
        batch_size=recipe.batch_size,
        n_epochs=recipe.n_epochs,
        gamma=recipe.gamma,
        gae_lambda=recipe.gae_lambda,
        clip_range=recipe.clip_range,
        ent_coef=recipe.ent_coef,
        vf_coef=recipe.vf_coef,
        max_grad_norm=recipe.max_grad_norm,
        use_sde=recipe.use_sde,
        sde_sample_freq=recipe.sde_sample_freq,
        policy_kwargs={**policy_arguments(recipe), "optimizer_kwargs": _ADAM},
        seed=seed,
        device=device,
    )
    # a fifth faster for convolutions as small as these
    model.policy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its types
    return model


def build_policy(
    recipe: Recipe, observations: gym.spaces.Space[Any], actions: gym.spaces.Space[Any]
) -> ActorCriticPolicy:
    """The network alone, with initial weights, for evaluation.

    Raises:
        UserError: it needs a package that is not installed.
    """
    kinds: dict[str, Any] = {"CnnPolicy": ActorCriticCnnPolicy, "MlpPolicy": ActorCriticPolicy}
    if recipe.algorithm == "recurrent-ppo":
        kinds = dict(contrib().RecurrentPPO.policy_aliases)
    policy: ActorCriticPolicy = kinds[recipe.policy](
        observations,
        actions,
        lambda _: recipe.learning_rate,
        use_sde=recipe.use_sde,
        **policy_arguments(recipe),
    )
    # as it was trained, so that the very same floats come out
    policy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its types
    return policy
