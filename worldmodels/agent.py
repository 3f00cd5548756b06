"""The agent: V, M and C as one policy, and the folder that it lives in.

A folder holds `vision.safetensors`, `memory.safetensors`, `controller.safetensors`, optionally
`starts.safetensors` (recorded states that its dreams begin at), `config.json` and a model card,
`README.md`. Nothing in it is code. An agent that only acts may lack V's decoder.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from worldmodels import _agent_files as files
from worldmodels.config import Repeat, require
from worldmodels.controller import linear
from worldmodels.controller.linear import ControllerConfig, InputStats
from worldmodels.dream.config import Ends
from worldmodels.dream.starts import DreamStarts
from worldmodels.envs.frames import FrameSpec, to_vision
from worldmodels.envs.spaces import ActionSpec, require_pixels
from worldmodels.memory.interface import Memory, MemoryState
from worldmodels.memory.rewards import RewardModel
from worldmodels.policies.hold import HoldingPolicy, Seen
from worldmodels.policies.observations import Shape, declared_shape
from worldmodels.protocols import SHIPPED, LatentPolicy, UserError, shipped
from worldmodels.runs import agent_folder, mixed_precision
from worldmodels.vision.vae import ConvVAE, to_float, to_uint8

if TYPE_CHECKING:
    from worldmodels.dream.imagine import Imagined

BFLOAT16_BATCH = 8
"""Smallest batch of frames for which V is faster in bfloat16 (measured on AVX-512 BF16)."""


class AgentState(NamedTuple):
    """The state of B episodes.

    M is stepped when the next frame comes, with the action that was executed (`Agent.executed`).
    """

    h: NDArray[np.float32]  #: (B, H) M's features at the last decision
    c: NDArray[np.float32]  #: (B, C) the rest of M's state
    z: NDArray[np.float32]  #: (B, Z) latent of that frame
    action: NDArray[np.float32]  #: (B, A) action taken there, as M sees it
    held: NDArray[np.int64]
    """(B,) steps of the environment that it has been chosen for, 1 to `Agent.action_repeat`"""


class LinearPolicy:
    """C as a `LatentPolicy`, differentiable in z and h."""

    def __init__(self, agent: Agent) -> None:
        """Copy C's parameters."""
        parameters, sizes = torch.tensor(agent.parameters)[None], (agent.z_dim, agent.h_dim)
        self._one = linear.Controllers(parameters, agent.controller, *sizes, agent.input_stats)

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """M's action inputs (B, A) at z (B, Z) and h (B, H), or [h, c]."""
        return self._one(z[None], h[None])[0]


class Agent(HoldingPolicy[AgentState]):
    """V + M + C with Stable-Baselines3's `predict`.

    At time t the controller sees [z_t, h_t] (or z_t alone, or c_t too), z_t from the frame and h_t
    from what came before; the next decision steps M with z_t and the executed action to h_{t+1}.
    With an `action_repeat` of k it decides at every k-th frame, and `predict` gives that action for
    k frames.

    V, M and the dream on their own::

        agent = Agent.from_pretrained("car-racing")
        mu, logvar = agent.encode(frames)  # (B, 96, 96, 3) uint8 to (B, Z) each
        pictures = agent.decode(mu)  # (B, 64, 64, 3) uint8

        M = agent.memories[0]
        state = M.initial_state(len(mu))
        output, state = M.step(mu, action, state)  # action (B, A); output.mu: the next z

        dream = agent.imagine(steps=100, dreams=16)
    """

    def __init__(
        self,
        vision: ConvVAE,
        memories: Sequence[Memory],
        controller: ControllerConfig,
        parameters: ArrayLike,
        *,
        env_id: str,
        frame_spec: FrameSpec,
        action_spec: ActionSpec,
        reward_model: RewardModel | None = None,
        input_stats: InputStats | None = None,
        starts: DreamStarts | None = None,
        action_repeat: int = 1,
        observation_shape: Sequence[int] | None = None,
        ends: Ends = Ends(),  # noqa: B008  # frozen
        metadata: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        """Put the parts together.

        Args:
            vision: V; it is switched to channels-last memory, which is faster.
            memories: one M, or an ensemble; the controller sees the first one's h.
            controller: shape of C.
            parameters: (N,) of C.
            env_id: Gymnasium id.
            frame_spec: from the environment's frames to V's.
            action_spec: the environment's action space.
            reward_model: meaning of M's reward head; needed to dream.
            input_stats: C's input normalisation, where ``controller.normalize``.
            starts: recorded states for dreams.
            action_repeat: steps of the environment that each action is held for, as in M's data.
            observation_shape: of the environment's frames (default: ask the environment).
            ends: where its dreams end, as in its training.
            metadata: for the model card: score, ledger, versions.
            seed: of z's noise, where `predict` is not deterministic.

        Raises:
            UserError: the parts do not fit each other.
        """
        super().__init__()
        vision.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's types
        self.vision = vision.eval()
        self.memories = [memory.eval() for memory in memories]
        self.controller, self.input_stats = controller, input_stats
        self.parameters = np.array(parameters, np.float32)
        self.env_id, self.frame_spec, self.action_spec = env_id, frame_spec, action_spec
        self.reward_model, self.starts, self.action_repeat = reward_model, starts, action_repeat
        self._given: Shape | None = None if observation_shape is None else tuple(observation_shape)
        self.ends = ends
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.bfloat16 = False
        """let V compute in bfloat16 on batches, where that is fast: slightly other actions"""
        self._rng = np.random.default_rng(seed)
        self._other: LatentPolicy | None = None
        self.digest = ""
        """identifies what acts in C's place in evaluations that can be resumed"""
        self._check()
        self.z_dim, self.h_dim = vision.cfg.z_dim, self.memories[0].cfg.hidden_size
        """sizes of V's latent and of M's features"""
        self.seen_dim = self.memories[0].seen_size(controller.carry)
        """width of what policies see of M: h, or [h, c]"""
        self.linear = LinearPolicy(self)
        """C, whatever acts"""

    def __repr__(self) -> str:
        """Name the environment and the sizes."""
        sizes = f"z {self.z_dim}, h {self.h_dim}, {len(self.memories)} memories"
        c = f"controller {self.controller.inputs!r} with {self.parameters.size} parameters"
        return f"Agent({self.env_id!r}, {sizes}, {c})"

    @property
    def observation_shape(self) -> Shape | None:
        """Shape of the environment's own frames; None if the environment is not installed."""
        return declared_shape(self.env_id) if self._given is None else self._given

    def _shape(self) -> Shape | None:
        return self.observation_shape

    @property
    def _sees_memory(self) -> bool:
        return self.controller.inputs != "z" or self._other is not None

    def _remembers(self, state: AgentState) -> bool:
        return self._sees_memory or self.action_repeat > 1

    @torch.inference_mode()
    def _decide(self, seen: Seen, state: AgentState | None) -> AgentState:
        z = self.perceive(seen.frames, seen.deterministic, self._rng)
        memory = self.memories[0].initial_state(len(z))
        if state is not None and self._sees_memory:
            h, c, last_z, last_action = (torch.from_numpy(part) for part in state[:4])
            memory = self.memories[0].advance(last_z, last_action, MemoryState(h, c))
            memory = memory.kept(torch.from_numpy(~seen.starts)[:, None])
        action = self.act(z, memory.seen(self.controller.carry))
        parts = (memory.h.numpy(), memory.c.numpy(), z.numpy(), action.numpy())
        new = AgentState(*parts, np.ones(len(z), np.int64))
        if not (np.isfinite(new.z).all() and np.isfinite(new.action).all()):
            raise UserError(
                f"the agent for {self.env_id} computes numbers that are not finite: its weights "
                "are damaged or its training diverged; take another one"
            )
        return new

    def _actions(self, state: AgentState) -> NDArray[Any]:
        return self.action_spec.decode(state.action)

    def act(self, z: Tensor, h: Tensor) -> Tensor:
        """Act by C, or by the policy in its place: see `LatentPolicy`."""
        return (self._other or self.linear)(z, h)

    def executed(self, state: AgentState, action: NDArray[Any]) -> AgentState:
        """The state that `predict` returned, after other actions (B, A) or (B,) were executed."""
        return state._replace(action=self.action_spec.encode(action))

    @torch.inference_mode()
    def encode(self, obs: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Raw frames (B, H, W, 3) to V's posterior (mu, logvar), each (B, Z) float32."""
        frames = to_float(torch.from_numpy(to_vision(obs, self.frame_spec)))
        fast = self.bfloat16 and len(frames) >= BFLOAT16_BATCH
        with mixed_precision(frames.device, fast):
            mu, logvar = self.vision.encode(frames)
        return mu.float(), logvar.float()

    @torch.inference_mode()
    def perceive(
        self, frames: NDArray[np.uint8], deterministic: bool, rng: np.random.Generator
    ) -> Tensor:
        """Raw frames (B, H, W, 3) to z (B, Z): V's mean, or a sample of its posterior."""
        mu, logvar = self.encode(frames)
        if deterministic:
            return mu
        noise = rng.standard_normal(tuple(mu.shape), np.float32)
        return mu + torch.exp(0.5 * logvar) * torch.from_numpy(noise)

    @torch.inference_mode()
    def decode(self, z: ArrayLike | Tensor) -> NDArray[np.uint8]:
        """Latents (B, Z) to V's frames (B, 64, 64, 3) uint8."""
        frames = self.vision.decode(torch.as_tensor(z, dtype=torch.float32))
        return np.asarray(to_uint8(frames))

    def imagine(
        self,
        steps: int = 100,
        dreams: int = 1,
        *,
        actions: ArrayLike | None = None,
        frames: NDArray[np.uint8] | None = None,
        seed: int = 0,
        **changes: Any,
    ) -> Imagined:
        """Dream with M: B dreams, in which the agent acts, or ``actions`` are taken.

        ::

            dream = agent.imagine(steps=100, dreams=16, temperature=1.15)
            pictures = agent.decode(dream.z[0])  # (101, 64, 64, 3)
            print(dream.total_reward.mean(), dream.length)

        Args:
            steps: T, steps of M, each `action_repeat` steps of the environment.
            dreams: B.
            actions: (T, A) or (T,) the environment's actions, in every dream, or (B, T, ...).
            frames: (B, H, W, 3) the environment's own frames to start at, with M's state empty
                (default: recorded states, drawn by ``seed``).
            seed: of the starts and of M's noise.
            changes: fields of `DreamConfig`, such as ``temperature``.

        Raises:
            UserError: an agent that cannot dream, actions of another shape, an unknown field.
        """
        from worldmodels.dream.imagine import imagine  # the environment of dreams opens agents

        return imagine(self, steps, dreams, actions=actions, frames=frames, seed=seed, **changes)

    def to_dream(self) -> tuple[RewardModel, DreamStarts]:
        """What only dreams need; a UserError where one of them is missing."""
        if self.reward_model is None or self.starts is None:
            missing = "recorded starts" if self.starts is None else "reward model"
            raise UserError(
                f"this agent cannot dream: it has no {missing}; use one saved by the pipeline"
            )
        return self.reward_model, self.starts

    def reseed(self, seed: int) -> None:
        """Seed z's noise, where `predict` is not deterministic."""
        self._rng = np.random.default_rng(seed)

    def with_parameters(self, parameters: ArrayLike, **metadata: Any) -> Agent:
        """The same V and M under another controller of the same shape."""
        other = copy.copy(self)
        other.parameters = np.array(parameters, np.float32)
        other.metadata = {**self.metadata, **metadata}
        other._check()
        other.linear = LinearPolicy(other)
        return other

    def with_policy(self, policy: LatentPolicy, digest: str = "") -> Agent:
        """The same V and M under another policy than C; it cannot be saved.

        The ``digest`` of its weights identifies it in evaluations that can be resumed.
        """
        other = copy.copy(self)
        other._other, other.digest = policy, digest
        return other

    def without_dreams(self) -> Agent:
        """The same agent without V's decoder and the recorded starts, which only dreams need."""
        other = copy.copy(self)
        other.vision, other.starts = self.vision.without_decoder(), None
        return other

    def check_env(self, env: gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]) -> None:
        """Make sure that this agent can act in an environment, or raise a UserError.

        If its own environment is not installed, it takes the observation shape of this one.
        """
        space = getattr(env, "single_action_space", env.action_space)
        theirs, name = ActionSpec.from_space(space), env.spec.id if env.spec else str(env)
        own = self.action_spec
        same = (theirs.kind, theirs.dim, theirs.start) == (own.kind, own.dim, own.start)
        bounds = (theirs.low, theirs.high), (own.low, own.high)
        if not same or not np.allclose(*bounds, equal_nan=True):
            raise UserError(
                f"this agent was trained for {self.env_id} with {_describe(own)}; "
                f"{name} has {_describe(theirs)}: choose another agent or another environment"
            )
        pixels = getattr(env, "single_observation_space", env.observation_space)
        require_pixels(pixels, name)
        if self.observation_shape is None:
            self._given = pixels.shape
        elif self.observation_shape != pixels.shape:
            raise UserError(
                f"this agent sees frames {self.observation_shape}; {name} gives {pixels.shape}: "
                "choose another agent or another environment"
            )

    def save_pretrained(self, folder: str | Path, dtype: str = "float16") -> Path:
        """Write the folder as a whole, and return it; other files in it stay.

        ``dtype`` is that of V and M, "float16" or "float32"; C is always stored as float32.

        Raises:
            UserError: another dtype, a number too large for it, a full disk, or a folder with other
                contents than an agent.
        """
        if self._other is not None:
            raise UserError("an agent with another policy than C cannot be saved")
        return files.save(self, Path(folder), dtype)

    @classmethod
    def from_pretrained(cls, path_or_name: str | Path) -> Self:
        """Read an agent by its folder, or a bundled one by its name.

        Raises:
            UserError: no such folder or name, a missing or damaged file, tensors of other shapes.
        """
        return cls(**files.load(find(path_or_name)))

    def _check(self) -> None:
        require("action_repeat", self.action_repeat, Repeat)
        if not self.memories:
            raise UserError("an agent needs at least one memory")
        cfg = self.memories[0].cfg
        if any(memory.cfg != cfg for memory in self.memories):
            raise UserError("the memories of an ensemble must have the same config")
        size = self.action_spec.size
        for what, got, right in (
            ("M's z_dim", cfg.z_dim, self.vision.cfg.z_dim),
            ("M's action_size", cfg.action_size, size),
            ("C's number of actions", self.controller.action_size, size),
        ):
            if got != right:
                raise UserError(f"{what} is {got}; V and the action space need {right}")
        if self.controller.discrete != (self.action_spec.kind == "discrete"):
            raise UserError(f"C's squashing does not fit {_describe(self.action_spec)}")
        if not np.isfinite(self.parameters).all():
            raise UserError("C's parameters are not all finite")


def find(path_or_name: str | Path) -> Path:
    """The folder of an agent, given by its path, its run's path, or the name of a bundled one.

    Raises:
        UserError: no such agent; the bundled ones are listed.
    """
    path = agent_folder(Path(path_or_name))
    if (path / files.CONFIG).is_file():
        return path
    if path.name == str(path_or_name) and (SHIPPED / path.name / files.CONFIG).is_file():
        return SHIPPED / path.name
    what = f"has no {files.CONFIG}" if path.is_dir() else "is not a folder"
    raise UserError(
        f"no agent {str(path_or_name)!r}: it {what}; the package comes with: "
        f"{', '.join(shipped(SHIPPED)) or 'none'}"
    )


def _describe(spec: ActionSpec) -> str:
    if spec.kind == "discrete":
        return f"{spec.dim} discrete actions" + (f" from {spec.start}" if spec.start else "")
    kind = "integer" if spec.integer else "continuous"
    return f"{spec.dim} {kind} actions from {list(spec.low)} to {list(spec.high)}"
