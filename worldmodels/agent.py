"""The finished driver: V, M and C as one policy, and the folder that it lives in.

A folder holds `vision.safetensors`, `memory.safetensors`, `controller.safetensors`, where there are
any `starts.safetensors` (recorded states that its dreams begin at), `config.json` and a card,
`README.md`. Nothing in it is code. An agent that only drives may lack V's decoder.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from worldmodels import _agent_files as files
from worldmodels.config import Config, Few, Repeat, require
from worldmodels.controller import linear
from worldmodels.controller.linear import ControllerConfig, InputStats
from worldmodels.envs.frames import FrameSpec, to_vision
from worldmodels.envs.spaces import ActionSpec, require_pixels
from worldmodels.memory.interface import Memory, MemoryState
from worldmodels.memory.kinds import AnyMemoryConfig, build
from worldmodels.memory.rewards import RewardModel
from worldmodels.policies.observations import (
    ObservationShape,
    Shape,
    StateWatch,
    as_batch,
    as_starts,
    declared_shape,
)
from worldmodels.protocols import UserError
from worldmodels.runs import agent_folder, mixed_precision, to_jsonable
from worldmodels.vision.vae import ConvVAE, VAEConfig, to_float, to_uint8

SHIPPED = Path(__file__).parent / "agents"
"""Agents that come with the package, one folder each."""

BFLOAT16_BATCH = 8
"""Smallest batch of frames for which V is faster in bfloat16 (measured on AVX-512 BF16)."""


@dataclass(frozen=True, kw_only=True)
class AgentConfig(Config):
    """What `config.json` says of an agent, beside the schema, its files' digests and versions."""

    env_id: str
    dtype: str = "float16"
    observation_shape: ObservationShape | None = None
    frame_spec: FrameSpec
    action_spec: ActionSpec
    vision: VAEConfig
    decoder: bool = True
    memory: AnyMemoryConfig
    memories: Few
    controller: ControllerConfig
    reward_model: RewardModel | None
    action_repeat: Repeat = 1
    metadata: Mapping[str, Any]

    def _check(self) -> None:
        if self.dtype not in files.DTYPES:
            self.refuse("dtype", f"one of {', '.join(files.DTYPES)}")


class AgentState(NamedTuple):
    """What the driver carries from step to step.

    M is stepped when the next frame comes, so that it learns which action was executed at this one
    (`Agent.executed`), where that was not the agent's own.
    """

    h: NDArray[np.float32]
    """(B, H) M's features at the last frame"""
    c: NDArray[np.float32]
    """(B, C) what else M carries"""
    z: NDArray[np.float32]
    """(B, Z) latent of the last frame"""
    action: NDArray[np.float32]
    """(B, A) action taken there, as M sees it"""
    held: NDArray[np.int64]
    """(B,) steps of the environment that it has been chosen for, 1 to `Agent.action_repeat`"""


Control: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From z (B, Z) and h (B, H) to actions (B, A), or indices (B,) for a Discrete space."""


class Starts(Protocol):
    """Recorded states that dreams begin at, such as `worldmodels.dream.starts.DreamStarts`."""

    @property
    def z(self) -> NDArray[np.float32]:
        """(S, Z)."""

    @property
    def h(self) -> NDArray[np.float32]:
        """(M, S, H), one warmed state per memory."""

    @property
    def c(self) -> NDArray[np.float32]:
        """(M, S, C)."""


class StartArrays(NamedTuple):
    """`Starts` as they are read from a folder."""

    z: NDArray[np.float32]
    """(S, Z)"""
    h: NDArray[np.float32]
    """(M, S, H)"""
    c: NDArray[np.float32]
    """(M, S, C)"""


class Agent:
    """V + M + C with Stable-Baselines3's `predict`.

    At time t the controller sees [z_t, h_t], z_t from the frame and h_t from what came before; the
    next decision steps M with z_t and the executed action to h_{t+1}. With an `action_repeat` k
    there is a decision at every k-th frame only, and `predict` gives its action for all of the k.
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
        starts: Starts | None = None,
        action_repeat: int = 1,
        observation_shape: Sequence[int] | None = None,
        metadata: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        """Put the parts together.

        Args:
            vision: V; it is switched to channels-last memory, which is faster.
            memories: one M, or an ensemble; the controller sees the first one's h.
            controller: shape of C.
            parameters: (N,) C's parameters.
            env_id: the environment that it drives.
            frame_spec: from the environment's frames to V's.
            action_spec: the environment's action space.
            reward_model: meaning of M's reward head; needed to dream.
            input_stats: C's input normalisation, where ``controller.normalize``.
            starts: recorded states for dreams.
            action_repeat: steps of the environment that each action is held for, as in M's data.
            observation_shape: of the environment's own frames, (H, W), (H, W, 1) or (H, W, 3); None
                asks the environment for it.
            metadata: what the card says: score, ledger, versions.
            seed: of the noise that samples z when `predict` is not deterministic.

        Raises:
            UserError: the parts do not fit each other.
        """
        vision.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's types
        self.vision = vision.eval()
        self.memories = [memory.eval() for memory in memories]
        self.controller, self.input_stats = controller, input_stats
        self.parameters = np.array(parameters, np.float32)
        self.env_id, self.frame_spec, self.action_spec = env_id, frame_spec, action_spec
        self.reward_model, self.starts = reward_model, starts
        self.action_repeat = action_repeat
        self._shape: Shape | None = None if observation_shape is None else tuple(observation_shape)
        self._watch = StateWatch()
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.bfloat16 = False
        """let V compute in bfloat16 on batches, where the machine multiplies it fast: slightly
        different actions"""
        self._rng = np.random.default_rng(seed)
        self._control: Control | None = None
        self.digest = ""
        """names the weights of what drives in C's place, for evaluations that can be resumed"""
        self._check()
        self._weights = self._build_weights()

    def __repr__(self) -> str:
        """Say what it drives and how big it is."""
        cfg = self.controller
        return (
            f"Agent({self.env_id!r}, z {self.z_dim}, h {self.h_dim}, "
            f"{len(self.memories)} memories, "
            f"controller {cfg.inputs!r} with {self.parameters.size} parameters)"
        )

    def __copy__(self) -> Self:
        """The same parts with its own generator, so that neither changes what the other samples."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._rng = copy.deepcopy(self._rng)
        other._watch = StateWatch()
        return other

    @property
    def z_dim(self) -> int:
        """Size of V's latent."""
        return self.vision.cfg.z_dim

    @property
    def h_dim(self) -> int:
        """Size of M's features h."""
        return self.memories[0].cfg.hidden_size

    @property
    def observation_shape(self) -> Shape | None:
        """Shape of the environment's own frames; None where the environment is not installed."""
        return declared_shape(self.env_id) if self._shape is None else self._shape

    def batch(self, observation: ArrayLike) -> tuple[NDArray[np.uint8], bool]:
        """Frames (B, H, W, C) of one observation or a batch, and True where it was a single one.

        Raises:
            UserError: they are not of the shape and the type that this agent sees.
        """
        return as_batch(observation, self.observation_shape)

    def predict(
        self,
        observation: NDArray[np.uint8],
        state: AgentState | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], AgentState]:
        """Choose actions for every step of the environment, holding each for `action_repeat`.

        The state carries the memory, so pass it on until the episode ends::

            action, state = agent.predict(obs, state, deterministic=True)

        See `decide` for arguments, results and errors.
        """
        if self.controller.inputs == "zh" or self._control is not None or self.action_repeat > 1:
            self._watch.note(state, episode_start)
        if self.action_repeat == 1 or state is None:
            return self.decide(observation, state, episode_start, deterministic)
        frames, single = self.batch(observation)
        starts = as_starts(episode_start, len(frames), len(state.h))
        due = starts | (state.held >= self.action_repeat)
        new, new_state = self._hold(state)
        if due.any():
            # all rows are computed, so that the shapes of the products do not depend on the phase
            fresh, fresh_state = self.decide(frames, state, starts, deterministic)
            rows = due[:, None]
            new = np.where(rows if new.ndim == 2 else due, fresh, new)
            h, c, z, action = (
                np.where(rows, a, b) for a, b in zip(fresh_state[:4], new_state[:4], strict=True)
            )
            new_state = AgentState(h, c, z, action, np.where(due, 1, new_state.held))
        return (new[0] if single else new), new_state

    @torch.inference_mode()
    def decide(
        self,
        observation: NDArray[np.uint8],
        state: AgentState | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], AgentState]:
        """Choose new actions now, whatever is being held.

        Args:
            observation: the environment's own frame, (H, W, 3) uint8 (or a grey one), or a batch
                (B, H, W, 3).
            state: what the previous call returned; None at the start of all episodes.
            episode_start: (B,) True where an episode begins: its state is reset.
            deterministic: drive by V's mean; otherwise z is sampled from V's posterior.

        Returns:
            Actions, (A,) or (B, A) in the type of a Box space, a number or (B,) int64 for a
            Discrete one, and the new state.

        Raises:
            UserError: the frames are of another shape or type than the environment's, their number
                is not the state's, or the weights are so large that the computation overflows.
        """
        frames, single = self.batch(observation)
        mu, logvar = self.encode(frames)
        z = mu
        if not deterministic:
            noise = self._rng.standard_normal(tuple(mu.shape), np.float32)
            z = mu + torch.exp(0.5 * logvar) * torch.from_numpy(noise)
        memory = self._resume(state, episode_start, len(z))
        action = self.act(z, memory.h)
        encoded = linear.memory_input(action, self.controller)
        held = np.ones(len(z), np.int64)
        new_state = AgentState(memory.h.numpy(), memory.c.numpy(), z.numpy(), encoded.numpy(), held)
        actions = self.action_spec.decode(encoded.numpy())
        if not (np.isfinite(new_state.z).all() and np.isfinite(encoded.numpy()).all()):
            raise UserError(
                f"the agent for {self.env_id} computes numbers that are not finite: its weights "
                "are damaged or its training diverged; take another one"
            )
        return (actions[0] if single else actions), new_state

    def act(self, z: Tensor, h: Tensor) -> Tensor:
        """What drives, C or another in its place: see `Control`."""
        if self._control is not None:
            return self._control(z, h)
        seen = h[None] if self.controller.inputs == "zh" else None
        return linear.forward(self._weights, z[None], seen, self.controller)[0]

    def _hold(self, state: AgentState) -> tuple[NDArray[Any], AgentState]:
        """The actions of before, held for one step more."""
        return self.action_spec.decode(state.action), state._replace(held=state.held + 1)

    def executed(self, state: AgentState, action: NDArray[Any]) -> AgentState:
        """The state that `predict` returned, after another action than its own was executed.

        Args:
            state: of B episodes.
            action: (B, A) or (B,), as the environment took it.
        """
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
    def decode(self, z: ArrayLike | Tensor) -> NDArray[np.uint8]:
        """Latents (B, Z) to V's frames (B, 64, 64, 3) uint8."""
        frames = self.vision.decode(torch.as_tensor(z, dtype=torch.float32))
        decoded: NDArray[np.uint8] = to_uint8(frames).numpy()
        return decoded

    def reseed(self, seed: int) -> None:
        """Start the noise of z anew, where `predict` is not deterministic."""
        self._rng = np.random.default_rng(seed)

    def with_parameters(self, parameters: ArrayLike, **metadata: Any) -> Agent:
        """The same V and M under another controller of the same shape."""
        other = copy.copy(self)
        other.parameters = np.array(parameters, np.float32)
        other.metadata = {**self.metadata, **metadata}
        other._check()
        other._weights = other._build_weights()
        return other

    def with_control(self, control: Control, digest: str = "") -> Agent:
        """The same V and M, driven by something else than C: a network trained in the dream, say.

        It drives and can be sent to a process where `control` can; it cannot be saved.

        Args:
            control: what drives.
            digest: of its weights, by which an interrupted evaluation knows it again.
        """
        other = copy.copy(self)
        other._control, other.digest = control, digest
        return other

    def for_driving(self) -> Agent:
        """The same driver without what only dreams need: V's decoder and the recorded starts."""
        other = copy.copy(self)
        other.vision, other.starts = self.vision.without_decoder(), None
        return other

    def check_env(self, env: gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]) -> None:
        """Make sure that this agent can drive an environment.

        Raises:
            UserError: its action space or its observations are not those of the agent's own
                environment. Where that one is not installed, this one's observations are taken for
                the agent's from now on.
        """
        space = getattr(env, "single_action_space", env.action_space)
        theirs, name = ActionSpec.from_space(space), env.spec.id if env.spec else str(env)
        own = self.action_spec
        same = (theirs.kind, theirs.dim, theirs.start) == (own.kind, own.dim, own.start)
        if not same or not np.allclose((theirs.low, theirs.high), self._bounds, equal_nan=True):
            raise UserError(
                f"this agent was trained for {self.env_id} with {_describe(self.action_spec)}; "
                f"{name} has {_describe(theirs)}: choose another agent or another environment"
            )
        pixels = getattr(env, "single_observation_space", env.observation_space)
        require_pixels(pixels, name)
        if self.observation_shape is None:
            self._shape = pixels.shape
        elif self.observation_shape != pixels.shape:
            raise UserError(
                f"this agent sees frames {self.observation_shape}; {name} gives {pixels.shape}: "
                "choose another agent or another environment"
            )

    def save_pretrained(self, folder: str | Path, dtype: str = "float16") -> Path:
        """Write the folder as a whole: a kill leaves the old one or the new one.

        Args:
            folder: its parents are created; an older agent in it is replaced, other files stay.
            dtype: of V's and M's numbers, "float16" or "float32"; C's are always float32.

        Returns:
            The folder.

        Raises:
            UserError: another dtype, a number too large for it, a full disk, or a folder that holds
                something else than an agent.
        """
        if self._control is not None:
            raise UserError("an agent that C does not drive cannot be saved as one")
        tensors = {
            "vision": files.cast(self.vision.state_dict(), dtype, "vision"),
            "memory": files.cast(self._memory_tensors(), dtype, "memory"),
            "controller": self._controller_tensors(),
        }
        if self.starts is not None:
            arrays = {name: getattr(self.starts, name) for name in ("z", "h", "c")}
            starts = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
            tensors["starts"] = files.cast(starts, dtype, "starts")
        config = AgentConfig(
            env_id=self.env_id,
            dtype=dtype,
            observation_shape=self.observation_shape,
            frame_spec=self.frame_spec,
            action_spec=self.action_spec,
            vision=self.vision.cfg,
            decoder=self.vision.decoder is not None,
            memory=self.memories[0].cfg,
            memories=len(self.memories),
            controller=self.controller,
            reward_model=self.reward_model,
            action_repeat=self.action_repeat,
            metadata=self.metadata,
        )
        return files.save(Path(folder), to_jsonable(config), tensors)

    @classmethod
    def from_pretrained(cls, path_or_name: str | Path) -> Self:
        """Read an agent from a folder, or one that comes with the package by its name.

        Raises:
            UserError: no such folder or name, a missing or damaged file, tensors of other shapes.
        """
        folder = find(path_or_name)
        cfg, tensors = files.load(folder, AgentConfig)
        with torch.device("meta"):  # the weights come from the file: draw none
            vision = ConvVAE(cfg.vision, decoder=cfg.decoder)
            memory = build(cfg.memory)
        files.check_count(tensors["memory"], cfg.memories, folder)
        memories = [copy.deepcopy(memory) for _ in range(cfg.memories)]
        files.assign(vision, tensors["vision"], folder / "vision.safetensors")
        for m, memory in enumerate(memories):
            files.assign(memory, tensors["memory"], folder / "memory.safetensors", f"{m}.")
        hidden, z_dim = cfg.memory.hidden_size, cfg.vision.z_dim
        starts = stats = None
        if "starts" in tensors:
            widths = {"z": z_dim, "h": hidden, "c": memories[0].carry_size}
            states = files.starts(tensors["starts"], widths, cfg.memories, folder)
            starts = StartArrays(*(tensor.numpy() for tensor in states))
        if cfg.controller.normalize:
            width = linear.num_inputs(cfg.controller, z_dim, hidden)
            stats = InputStats(*files.input_stats(tensors["controller"], width, folder))
        return cls(
            vision,
            memories,
            cfg.controller,
            files.parameters(tensors["controller"], folder).numpy(),
            env_id=cfg.env_id,
            frame_spec=cfg.frame_spec,
            action_spec=cfg.action_spec,
            reward_model=cfg.reward_model,
            input_stats=stats,
            starts=starts,
            action_repeat=cfg.action_repeat,
            observation_shape=cfg.observation_shape,
            metadata=cfg.metadata,
        )

    @property
    def _bounds(self) -> tuple[Sequence[float], Sequence[float]]:
        return self.action_spec.low, self.action_spec.high

    def _resume(
        self, state: AgentState | None, episode_start: NDArray[np.bool_] | None, batch: int
    ) -> MemoryState:
        """M's state (B, H) at this call's frames, zeros where an episode begins."""
        if state is None or (self.controller.inputs == "z" and self._control is None):
            return self.memories[0].initial_state(batch)
        begins = as_starts(episode_start, batch, len(state.h))
        h, c, z, action = (torch.from_numpy(part) for part in state[:4])
        memory = self.memories[0].advance(z, action, MemoryState(h, c))
        return memory.kept(torch.from_numpy(~begins)[:, None]) if begins.any() else memory

    def _build_weights(self) -> linear.Weights:
        params = torch.tensor(self.parameters)[None]  # not a view, which copies would not have
        return linear.unflatten(params, self.controller, self.z_dim, self.h_dim, self.input_stats)

    def _memory_tensors(self) -> dict[str, Tensor]:
        each = [memory.state_dict() for memory in self.memories]
        return {f"{m}.{name}": t for m, state in enumerate(each) for name, t in state.items()}

    def _controller_tensors(self) -> dict[str, Tensor]:
        tensors = {"parameters": torch.from_numpy(self.parameters)}
        return tensors if self.input_stats is None else {**tensors, **self.input_stats._asdict()}

    def _check(self) -> None:
        """Make sure that the parts belong together."""
        require("action_repeat", self.action_repeat, Repeat)
        if not self.memories:
            raise UserError("an agent needs at least one memory")
        for memory in self.memories:
            if memory.cfg != self.memories[0].cfg:
                raise UserError("the memories of an ensemble must have the same config")
        cfg = self.memories[0].cfg
        size = self.action_spec.size
        for what, got, right in (
            ("M's z_dim", cfg.z_dim, self.z_dim),
            ("M's action_size", cfg.action_size, size),
            ("C's outputs", self.controller.outputs, size),
        ):
            if got != right:
                raise UserError(f"{what} is {got}; V and the action space need {right}")
        if self.controller.discrete != (self.action_spec.kind == "discrete"):
            raise UserError(f"C's squashing does not fit {_describe(self.action_spec)}")
        if not np.isfinite(self.parameters).all():
            raise UserError("C's parameters are not all finite")


def find(path_or_name: str | Path) -> Path:
    """The folder of an agent: a path, or the name of one that comes with the package.

    A run's folder stands for its agent.

    Raises:
        UserError: there is none; the text lists what exists.
    """
    path = agent_folder(Path(path_or_name))
    if (path / files.CONFIG).is_file():
        return path
    if path.name == str(path_or_name) and (SHIPPED / path.name / files.CONFIG).is_file():
        return SHIPPED / path.name
    known = sorted(p.parent.name for p in SHIPPED.glob(f"*/{files.CONFIG}"))
    what = f"has no {files.CONFIG}" if path.is_dir() else "is no folder"
    raise UserError(
        f"no agent {str(path_or_name)!r}: it {what}; the package comes with: "
        f"{', '.join(known) or 'none'}"
    )


def _describe(spec: ActionSpec) -> str:
    if spec.kind == "discrete":
        return f"{spec.dim} discrete actions" + (f" from {spec.start}" if spec.start else "")
    kind = "integer" if spec.integer else "continuous"
    return f"{spec.dim} {kind} actions from {list(spec.low)} to {list(spec.high)}"
