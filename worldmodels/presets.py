"""Every tunable of the pipeline: one frozen dataclass per stage, and the presets that fill them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Annotated, Any, Literal, TypeVar

from worldmodels.config import (
    NOT_EMPTY,
    Above,
    AtLeast,
    Below,
    Config,
    ConfigError,
    Count,
    CountOrZero,
    Decay,
    Episodes,
    Few,
    Fraction,
    HorizonOrZero,
    Limit,
    NotNegative,
    Positive,
    Repeat,
    Seed,
    Size,
    SizeOrZero,
)
from worldmodels.controller.evolve import EvolveConfig
from worldmodels.dream.config import DreamConfig
from worldmodels.envs.frames import FrameSpec
from worldmodels.experience.collect import GroupSize, TrainingEpisodes
from worldmodels.memory.interface import MemoryConfig
from worldmodels.memory.kinds import KINDS, Kind
from worldmodels.memory.rewards import RewardKind
from worldmodels.memory.train import MemoryTrainConfig
from worldmodels.planning.streams import PolicyTrainConfig, residual_training
from worldmodels.protocols import (
    NUM_TEST_SEEDS,
    SELECTION_SEED_START,
    TEST_SEED_START,
    TRAINING_SEED_LIMIT,
)
from worldmodels.tasks import task_for
from worldmodels.vision.train import VisionTrainConfig
from worldmodels.vision.vae import VAEConfig

T = TypeVar("T")

DEFAULT_ENV = "worldmodels/CarRacing-v3"
"""Environment of a run that names none."""

LIMITS = (
    "experience.explore_steps",
    "experience.agent_steps",
    "selection.max_steps",
    "test.max_steps",
)
"""Settings that limit the length of episodes."""


@dataclass(frozen=True)
class ExperienceConfig(Config):
    """What is collected: random driving first, then the newest driver with noise."""

    explore_episodes: TrainingEpisodes = 400
    """episodes of random driving before the first dream"""
    explore_steps: Count | None = 250
    """their longest length; short ones see more road, since a random car soon leaves it"""
    explore_scales: Annotated[tuple[NotNegative, ...], NOT_EMPTY] = (0.3, 0.5, 0.8)
    """standard deviations of the AR(1) noise, an equal share of the episodes each"""
    explore_rho: Decay = 0.9
    """how much of that noise is left one action later"""
    explore_bias: tuple[tuple[float, ...], ...] = ()
    """centres of the AR(1) noise in unit coordinates, an equal share each; empty for the default"""
    agent_episodes: TrainingEpisodes = 64
    """episodes of each later iteration, driven by the iteration's best driver with noise"""
    agent_steps: Count | None = None
    """their longest length; None leaves it to the environment"""
    agent_noise: Annotated[tuple[NotNegative, ...], NOT_EMPTY] = (0.0, 0.1, 0.3, 0.6)
    """standard deviations of the AR(1) noise on the driver's actions, an equal share each"""
    agent_snapshots: Literal["selected", "all"] = "selected"
    """who drives in later iterations: the selected controller, or every snapshot of the last
    evolution, an equal share of the episodes each: their accidents are what M has to see"""
    agent_bias_std: NotNegative = 0.0
    """standard deviation of a shift of the driver's actions, drawn once an episode with noise"""
    patience: Count | None = None
    """truncate a random episode after that many steps without a reward above 0; None never does"""
    agent_patience: Count | None = None
    """the same for the driver's episodes; longer ones show how to find back"""
    burst_probability: Fraction = 0.01
    """chance in each step that a kick begins: one random action, held for a while"""
    burst_steps: Count = 20
    """longest kick, in steps"""
    group: GroupSize = 8
    """episodes driven side by side by one worker, and stored in one shard"""


@dataclass(frozen=True)
class MemoryStageConfig(Config):
    """M: of which kind, how many, and what their reward head says."""

    kind: Kind = field(default="lstm", metadata={"omit_default": True})
    """lstm: the paper's MDN-RNN, with compiled kernels; transformer: sees the last 32 decisions"""
    ensemble: Few = 1
    """memories trained from different seeds; the controller sees the first one's h"""
    hidden_size: Size = 256
    """width of h: units of the LSTM, or of the transformer, whose four heads share them"""
    mixtures: Few = 5
    """Gaussian components per latent dimension"""
    sigma_floor: Annotated[float, Above(0), Below(1)] = 0.01
    """smallest standard deviation of a component"""
    dropout: Decay = 0.0
    """share of h dropped in training, one mask per sequence"""
    residual: bool = False
    """predict how z changes instead of what it becomes"""
    reward: Literal["auto", "event", "count", "raw"] = "auto"
    """event: one on top of a constant reward; count: several in a step (with held actions); raw:
    any reward; auto: read off the first round's rewards"""
    newest_repeats: Few = 1
    """how often an epoch plays the newest iteration's episodes"""

    def network(self, z_dim: int, action_size: int, reward: RewardKind) -> MemoryConfig:
        """Shape of one memory, whose reward head is of this kind."""
        config, _ = KINDS[self.kind]
        names = ("hidden_size", "mixtures", "sigma_floor", "dropout", "residual")
        own: dict[str, Any] = {name: getattr(self, name) for name in names}
        return config(z_dim=z_dim, action_size=action_size, reward=reward, **own)

    def _check(self) -> None:
        try:
            self.network(1, 1, "raw")
        except ConfigError as error:  # what this kind of M alone does not allow
            raise ConfigError(type(self), error.path, error.value, error.must) from None


@dataclass(frozen=True)
class StartsConfig(Config):
    """Where dreams begin."""

    count: Annotated[int, AtLeast(1), Limit(10**6)] = 4096
    """recorded states to begin from"""
    warmup: HorizonOrZero = 40
    """recorded steps played to M before a dream begins"""
    newest_weight: Positive = 1.0
    """chance of a state of the newest iteration, relative to one of an older"""
    off_track_weight: Positive = 1.0
    """chance of a state soon before a loss, relative to others: a run of steps without a reward"""
    off_track_before: Count = 30
    """states that far before a loss get that weight, in steps"""
    off_track_streak: Count = 12
    """shortest run of steps without a reward above 0 that is a loss"""


@dataclass(frozen=True)
class ControllerStageConfig(Config):
    """C: what it sees, and how it is evolved."""

    inputs: Literal["zh", "z"] = "zh"
    """the latent and M's hidden state, or the latent alone"""
    hidden: SizeOrZero = 0
    """units of one hidden layer; 0 for the paper's linear controller"""
    normalize: bool = False
    """standardise the inputs by the dream starts' mean and deviation"""
    components: SizeOrZero = 0
    """search in so many principal components of the inputs, whitened; 0 searches in all inputs"""
    evolve: EvolveConfig = field(default_factory=EvolveConfig)
    """the evolution of an iteration"""
    no_event_after: CountOrZero = 0
    """generations before the dream's `no_event_penalty` is charged, which would teach a beginner to
    stand still"""
    memory_iterations: Count = 1
    """evolve in an ensemble of the last N iterations' memories that share the current V; C sees
    the newest one's h"""
    warm_start: bool = True
    """start an iteration's evolution at the best driver so far instead of at zero"""

    def _check(self) -> None:
        if self.normalize and self.components:
            self.refuse("normalize", "False with components, which standardise already")


@dataclass(frozen=True)
class ResidualStageConfig(Config):
    """A bounded change of the chosen C, learnt in the dream of its M; kept if it drives better."""

    enabled: bool = False
    """learn one"""
    training: PolicyTrainConfig = field(default_factory=residual_training)
    """how"""

    def _check(self) -> None:
        if not self.training.network.residual > 0:
            self.refuse("training.network.residual", "above 0")


@dataclass(frozen=True)
class EnsembleStageConfig(Config):
    """The last choice: whether the other finalists drive beside the run's agent."""

    enabled: bool = False
    """try the agent with each of the other finalists, and with all of them"""


@dataclass(frozen=True)
class SelectionConfig(Config):
    """The small real validation that chooses between checkpoints."""

    episodes: Count = 16
    """real episodes per checkpoint, the same tracks for all"""
    early_episodes: Count | None = None
    """episodes per checkpoint before the last `late_iterations`, which alone can then give the
    run's agent (default: same as `episodes`)"""
    late_iterations: Count = 3
    """how many rounds are late"""
    finalists: Count = 3
    """best checkpoints that drive a second, larger round"""
    final_episodes: CountOrZero = 32
    """episodes of that round, on tracks of its own"""
    seed: Seed = SELECTION_SEED_START
    """first selection seed"""
    max_steps: Count | None = None
    """truncate episodes after that many steps; None leaves it to the environment"""
    reward_bound: float | None = None
    """largest mean reward per step that the environment can pay; a dream beyond it raises an
    alarm. None for unknown"""

    def _check(self) -> None:
        if (self.early_episodes or 0) > self.episodes:
            self.refuse("early_episodes", f"from 1 to episodes ({self.episodes}), or None")
        last = self.seed + 3 * (self.episodes + self.final_episodes)
        if self.seed < SELECTION_SEED_START or last > TEST_SEED_START:
            self.refuse("seed", f"from {SELECTION_SEED_START} to below {TEST_SEED_START}")

    def episodes_of(self, number: int, rounds: int) -> int:
        """Episodes per checkpoint in a round, of so many."""
        late = number >= rounds - self.late_iterations
        return self.episodes if late or self.early_episodes is None else self.early_episodes


@dataclass(frozen=True)
class TestConfig(Config):
    """The final test, on the published seeds."""

    __test__ = False  # not a test class, whatever pytest thinks of the name
    episodes: Episodes = NUM_TEST_SEEDS
    """test episodes"""
    seed: Annotated[int, AtLeast(TEST_SEED_START), Limit(10**9)] = TEST_SEED_START
    """first test seed"""
    max_steps: Count | None = None
    """truncate episodes after that many steps, for trials only; None is the honest test"""
    random_policy: bool = True
    """drive the same tracks at random too, for the report"""
    videos: bool = True
    """film the best, the median and the worst episode"""


@dataclass(frozen=True)
class FromScratchConfig(Config):
    """Late iterations that train M from scratch, on all frames so far, and the first of them V too.

    What grew from the first, random frames keeps a trace of them; and models that share no weights
    go wrong in different places.
    """

    iterations: CountOrZero = 0
    """how many, the last of the run"""
    vision_steps: Count | None = None
    """gradient steps of V in the first of them; None: as many as in the run's first iteration"""
    memory_steps: Count | None = None
    """gradient steps of M in each of them; None: as many as in the run's first iteration"""


@dataclass(frozen=True)
class RunConfig(Config):
    """The whole pipeline."""

    env_id: str = DEFAULT_ENV
    """environment that experience and selection use"""
    test_env_id: str | None = None
    """environment of the final test; None is env_id, or the stock one of a faster one"""
    iterations: Count = 5
    """rounds of collect, V, M, dream and C"""
    action_repeat: Repeat = 1
    """steps of the environment that each action is held for; M's step is as long"""
    frame_rows: Size | None = None
    """rows of the environment's frames that V sees, from the top; None takes the task's, or all"""
    horizontal_flip: bool = False
    """train V and M on the horizontal flip of every episode as well: twice the data for no more
    frames. Only where the task has a symmetry, as CarRacing has"""
    from_scratch: FromScratchConfig = field(default_factory=FromScratchConfig)
    """late iterations that train V and M from scratch"""
    experience: ExperienceConfig = field(default_factory=ExperienceConfig)
    """what is collected"""
    vision: VAEConfig = field(default_factory=VAEConfig)
    """shape of V"""
    vision_training: VisionTrainConfig = field(default_factory=VisionTrainConfig)
    """training of V"""
    memory: MemoryStageConfig = field(default_factory=MemoryStageConfig)
    """shape of M"""
    memory_training: MemoryTrainConfig = field(default_factory=MemoryTrainConfig)
    """training of M"""
    dream: DreamConfig = field(default_factory=DreamConfig)
    """the dream"""
    starts: StartsConfig = field(default_factory=StartsConfig)
    """where dreams begin"""
    controller: ControllerStageConfig = field(default_factory=ControllerStageConfig)
    """C and its evolution"""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    """the real validation"""
    residual: ResidualStageConfig = field(default_factory=ResidualStageConfig)
    """a bounded change of the chosen C"""
    ensemble: EnsembleStageConfig = field(default_factory=EnsembleStageConfig)
    """several rounds' drivers as one"""
    test: TestConfig = field(default_factory=TestConfig)
    """the final test"""

    def _check(self) -> None:
        cfg = self.experience
        total = cfg.explore_episodes + (self.iterations - 1) * cfg.agent_episodes
        if total > TRAINING_SEED_LIMIT:
            limit = f"the {TRAINING_SEED_LIMIT:,} training seeds"
            self.refuse("iterations", f"so small that {limit} are enough for {total:,} episodes")
        if self.dream.backend == "kernels" and self.memory.kind != "lstm":
            allowed = f"torch or auto with memory.kind {self.memory.kind}, which has no kernels"
            self.refuse("dream.backend", allowed)

    def limited(self, max_steps: int | None) -> RunConfig:
        """The same with no episode longer than so many steps; None changes nothing."""
        if max_steps is None:
            return self
        limits = self.limits().items()
        return changed(self, {name: min(own or max_steps, max_steps) for name, own in limits})

    def limits(self) -> dict[str, int | None]:
        """Longest episode of each kind, by the name of its setting; None: no limit of ours."""
        return {name: reduce(getattr, name.split("."), self) for name in LIMITS}  # type: ignore[misc]  # mypy follows no getattr

    def begins_memory(self, number: int) -> bool:
        """Whether M is trained from scratch in an iteration."""
        return number == 0 or number >= self.iterations - self.from_scratch.iterations

    def begins_vision(self, number: int) -> bool:
        """Whether V is trained from scratch in an iteration."""
        return number == 0 or number == self.iterations - self.from_scratch.iterations

    def trains_vision(self, number: int) -> bool:
        """Whether V is trained in an iteration; in the others it stays as it is."""
        return number <= self.vision_training.finetune_iterations or self.begins_vision(number)

    def vision_training_of(self, number: int) -> VisionTrainConfig:
        """How V is trained in an iteration."""
        cfg, steps = self.vision_training, self.from_scratch.vision_steps
        again = number > 0 and self.begins_vision(number)
        return dataclasses.replace(cfg, steps=steps) if again and steps is not None else cfg

    def memory_training_of(self, number: int) -> MemoryTrainConfig:
        """How M is trained in an iteration."""
        cfg, steps = self.memory_training, self.from_scratch.memory_steps
        again = number > 0 and self.begins_memory(number)
        return dataclasses.replace(cfg, steps=steps) if again and steps is not None else cfg

    @property
    def frame_spec(self) -> FrameSpec:
        """From the environment's frames to V's."""
        if self.frame_rows is None:
            return task_for(self.env_id).frame_spec
        return FrameSpec(rows=self.frame_rows)

    @property
    def test_env(self) -> str:
        """Where the agent is tested: the stock environment of a faster one."""
        return self.test_env_id or task_for(self.env_id).test_env(self.env_id)


def changed(cfg: T, settings: Mapping[str, Any]) -> T:
    """A configuration with some fields replaced, by names such as ``dream.temperature``."""
    inner: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        first, _, rest = name.partition(".")
        inner.setdefault(first, {})[rest] = value
    values = {
        name: fields[""] if "" in fields else changed(getattr(cfg, name), fields)
        for name, fields in inner.items()
    }
    return dataclasses.replace(cfg, **values)  # type: ignore[type-var]  # every T here is a dataclass


SMOKE: dict[str, Any] = {
    "iterations": 2,
    "experience.explore_episodes": 4,
    "experience.explore_steps": 40,
    "experience.agent_episodes": 2,
    "experience.agent_steps": 40,
    "experience.agent_snapshots": "all",
    "experience.group": 2,
    "vision.standardized": True,
    "vision.z_dim": 8,
    "vision.width": 8,
    "vision_training.steps": 10,
    "vision_training.finetune_steps": 5,
    "vision_training.batch_size": 16,
    "vision_training.checkpoint_every": 4,
    "vision_training.log_every": 5,
    "memory.hidden_size": 32,
    "memory_training.steps": 10,
    "memory_training.finetune_steps": 6,
    "memory_training.batch_size": 4,
    "memory_training.sequence_length": 16,
    "memory_training.checkpoint_every": 4,
    "memory_training.log_every": 5,
    "dream.horizon": 20,
    "dream.episodes": 4,
    "starts.count": 32,
    "starts.warmup": 8,
    "controller.components": 8,
    "controller.no_event_after": 2,
    "controller.evolve.strategy.population": 8,
    "controller.evolve.generations": 4,
    "controller.evolve.snapshot_every": 2,
    "controller.evolve.mean_window": 2,
    "controller.evolve.checkpoint_every": 2,
    "selection.episodes": 2,
    "selection.finalists": 2,
    "selection.final_episodes": 2,
    "selection.max_steps": 50,
    "residual.enabled": True,
    "residual.training.steps": 6,
    "residual.training.actors": 2,
    "residual.training.batch_size": 4,
    "residual.training.horizon": 3,
    "residual.training.critic_warmup_steps": 2,
    "residual.training.checkpoint_every": 2,
    "residual.training.log_every": 3,
    "ensemble.enabled": True,
    "test.episodes": 2,
    "test.max_steps": 50,
}
"""Everything once and tiny: under a minute, for tests. The agent learns nothing."""

QUICK: dict[str, Any] = {
    "iterations": 4,
    "experience.explore_episodes": 600,
    "experience.explore_scales": (0.2, 0.4, 0.7),
    "experience.agent_noise": (0.0, 0.05, 0.15, 0.3),
    "experience.agent_snapshots": "all",
    "experience.burst_steps": 5,
    "vision.standardized": True,
    "vision_training.steps": 1800,
    "vision_training.finetune_steps": 600,
    "vision_training.finetune_iterations": 1,
    "vision_training.batch_size": 32,
    "vision_training.kl_tolerance": 1.0,
    "memory.newest_repeats": 2,
    "memory_training.steps": 4000,
    "memory_training.finetune_steps": 2500,
    "memory_training.batch_size": 24,
    "memory_training.sequence_length": 32,
    "memory_training.learning_rate": 6e-3,
    "memory_training.finetune_learning_rate": 3e-3,
    "memory_training.bfloat16": True,
    "memory_training.checkpoint_every": 500,
    "memory_training.log_every": 50,
    "dream.horizon": 250,
    "dream.termination": "sampled",
    "starts.newest_weight": 3.0,
    "starts.off_track_before": 15,
    "controller.components": 32,
    "controller.evolve.generations": 80,
    "controller.evolve.snapshot_every": 20,
    "controller.evolve.mean_window": 30,
    "controller.no_event_after": 30,
    "controller.memory_iterations": 3,
    "controller.warm_start": False,
    "selection.episodes": 12,
    "selection.early_episodes": 2,
    "selection.late_iterations": 2,
    "selection.finalists": 2,
    "selection.final_episodes": 16,
    "residual.enabled": True,
    "residual.training.actors": 1,
    "test.episodes": 20,
}
"""From nothing to an agent within 30 minutes on two cores, installation included.

Where its numbers come from is told in docs/results/lab-notebook.md.
"""

FULL: dict[str, Any] = QUICK | {
    "iterations": 8,
    "from_scratch.iterations": 3,
    "from_scratch.vision_steps": 6000,
    "from_scratch.memory_steps": 6000,
    "vision_training.steps": 2500,
    "vision_training.finetune_steps": 1000,
    "memory_training.finetune_steps": 3000,
    "controller.evolve.generations": 60,
    "controller.memory_iterations": 1,
    "selection.episodes": 16,
    "selection.late_iterations": 3,
    "selection.finalists": 3,
    "selection.final_episodes": 40,
    "residual.enabled": False,
    "residual.training.actors": 2,
    "ensemble.enabled": True,
    "test.episodes": NUM_TEST_SEEDS,
}
"""The best agent that we know how to make, tested on all tracks.

Within 90 minutes on two cores and a million real frames, those of selection included.
"""


def _preset(name: str, settings: Mapping[str, Any], env_id: str = DEFAULT_ENV) -> RunConfig:
    """A preset, with what the task of the environment changes in it."""
    cfg = changed(RunConfig(env_id=env_id), settings)
    return changed(cfg, task_for(env_id).settings.get(name, {}))


smoke = partial(_preset, "smoke", SMOKE)
quick = partial(_preset, "quick", QUICK)
full = partial(_preset, "full", FULL)

PRESETS: dict[str, Callable[..., RunConfig]] = {"smoke": smoke, "quick": quick, "full": full}
"""Presets by name; each gives the settings for an environment."""
