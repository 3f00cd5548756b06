"""Every setting of the pipeline: one frozen dataclass per stage, and the presets that fill them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Annotated, Any, Literal, TypeVar

import tyro

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
from worldmodels.controller.linear import Discrete, Inputs
from worldmodels.dream.config import DreamConfig
from worldmodels.envs.frames import Crop, FrameSpec
from worldmodels.envs.spaces import ActionSpec
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
    UserError,
)
from worldmodels.tasks import Task, task_for
from worldmodels.tasks.choices import choices, findings
from worldmodels.tasks.default import measure
from worldmodels.vision.train import VisionTrainConfig
from worldmodels.vision.vae import VAEConfig

T = TypeVar("T")

DEFAULT_ENV = "worldmodels/CarRacing-v3"
"""Default environment of a run."""

LIMITS = (
    "experience.explore_steps",
    "experience.agent_steps",
    "selection.max_steps",
    "test.max_steps",
)
"""Settings that limit the length of episodes."""


@dataclass(frozen=True)
class ExperienceConfig(Config):
    """What is collected: episodes of random actions first, then of the newest agent with noise."""

    explore_episodes: TrainingEpisodes = 400
    """random episodes of the first iteration; more give V and M more to learn from"""
    explore_steps: Count | None = 250
    """limit of random episodes, in steps; lower it where random actions soon lead nowhere"""
    explore_scales: Annotated[tuple[NotNegative, ...], NOT_EMPTY] = (0.3, 0.5, 0.8)
    """standard deviations of the random actions, each for an equal number of episodes; several give
    varied data (Discrete actions have none)"""
    explore_rho: Decay = 0.9
    """correlation of random actions from one to the next; raise it for smoother ones. Discrete:
    the chance to keep a choice"""
    explore_bias: tuple[tuple[float, ...], ...] = ()
    """means of the random actions in unit coordinates, each for an equal number of episodes; set
    them where the task's own mean explores too little (default: the task's)"""
    agent_episodes: TrainingEpisodes = 64
    """episodes of each later iteration, by the agent with noise; more cost real frames"""
    agent_steps: Count | None = None
    """limit of the agent's episodes, in steps (None: the environment's)"""
    agent_noise: Annotated[tuple[NotNegative, ...], NOT_EMPTY] = (0.0, 0.1, 0.3, 0.6)
    """standard deviations of the noise on the agent's actions, each for an equal number of
    episodes; larger ones show M how the agent recovers. Discrete: fractions of the decisions that
    are random instead, each action held for 1 to burst_steps decisions"""
    agent_snapshots: Literal["selected", "all"] = "selected"
    """which agents collect: the selected one, or all snapshots of the last evolution in equal
    parts, whose failures M needs to see"""
    agent_bias_std: NotNegative = 0.0
    """standard deviation of a shift of the agent's actions, drawn once per episode with noise; 0
    for Discrete actions"""
    patience: Count | None = None
    """end a random episode after this many steps without a reward above 0 (None: never); set it
    where lost episodes fill the data"""
    agent_patience: Count | None = None
    """the same for the agent's episodes; longer ones show M how to recover"""
    burst_probability: Fraction = 0.01
    """chance per step that a burst of one random action interrupts the agent; 0 turns bursts off"""
    burst_steps: Count = 20
    """longest burst, in steps; lower it where one burst ends an episode"""
    group: GroupSize = 8
    """episodes that one worker runs side by side and stores in one shard; fewer need less memory"""

    def of_random_actions(self) -> ExperienceConfig:
        """These settings, with those that only the agents' episodes have at their defaults."""
        return dataclasses.replace(
            self,
            **{
                own.name: own.default
                for own in dataclasses.fields(self)
                if own.name.startswith(("agent_", "burst_"))
            },
        )


@dataclass(frozen=True)
class MemoryStageConfig(Config):
    """M: its kind, size and number, and the form of its reward."""

    kind: Kind = field(default="lstm", metadata={"omit_default": True})
    """lstm: the paper's MDN-RNN, with fast kernels; transformer: sees the last 32 decisions"""
    ensemble: Few = 1
    """memories that dream, of different seeds; C sees h of the first; raise it if C exploits M"""
    hidden_size: Size = 256
    """units of h, a multiple of 4 for the transformer; raise it for longer or richer tasks"""
    mixtures: Few = 5
    """Gaussian components per latent dimension; more model several possible futures"""
    sigma_floor: Annotated[float, Above(0), Below(1)] = 0.01
    """smallest standard deviation of a component; raise it if the loss of M diverges"""
    dropout: Decay = 0.0
    """fraction of h dropped in training, one mask per sequence; raise it if M overfits"""
    residual: bool = False
    """predict the change of z instead of the next z; try it where frames change little"""
    reward: Literal["auto", "event", "count", "raw", "two_hot"] = "auto"
    """event: a rare event on top of a constant; count: several events per step; two_hot: any
    reward; raw: its mean alone, by squared error; auto: what the first iteration's rewards need"""
    newest_repeats: Few = 1
    """plays of the newest iteration's episodes per epoch; raise it to fit the newest agent"""

    def network(self, z_dim: int, action_size: int, reward: RewardKind) -> MemoryConfig:
        """Shape of one memory with this kind of reward head."""
        config, _ = KINDS[self.kind]
        names = ("hidden_size", "mixtures", "sigma_floor", "dropout", "residual")
        own: dict[str, Any] = {name: getattr(self, name) for name in names}
        return config(z_dim=z_dim, action_size=action_size, reward=reward, **own)

    def _check(self) -> None:
        try:
            self.network(1, 1, "raw")
        except ConfigError as error:  # not allowed for this kind of M
            raise ConfigError(type(self), error.path, error.value, error.must) from None


@dataclass(frozen=True)
class StartsConfig(Config):
    """Where dreams begin."""

    count: Annotated[int, AtLeast(1), Limit(10**6)] = 4096
    """recorded states that dreams begin at; fewer use less memory"""
    warmup: HorizonOrZero = 40
    """recorded steps that M sees before a dream begins; fewer are faster"""
    newest_weight: Positive = 1.0
    """weight of the newest iteration's states; above 1 more dreams begin where the agent is now"""
    off_track_weight: Positive = 1.0
    """weight of the states just before an off-track run; above 1 C learns more about recovery"""
    off_track_before: Count = 30
    """steps before an off-track run whose states get off_track_weight"""
    off_track_streak: Count = 12
    """steps without a reward above 0 that make an off-track run; raise it if rewards are rare"""


@dataclass(frozen=True)
class ControllerStageConfig(Config):
    """C: its inputs, and its evolution."""

    inputs: Inputs = "zh"
    """zh: the latent and h of M; z: the latent only, to measure what memory is worth; zhc: the
    cell c of the lstm too, as the paper's C in Doom"""
    discrete: Discrete = field(default="argmax", metadata={"omit_default": True})
    """how C chooses among discrete actions. argmax: an output for each; thresholds: one output,
    as the paper's C in Doom; try it where choices have an order, such as left, none, right"""
    hidden: SizeOrZero = 0
    """units of one hidden layer; 0 is the paper's linear controller"""
    normalize: bool = False
    """standardise inputs by their mean and standard deviation over the dream starts"""
    components: SizeOrZero = 0
    """whitened principal components of the inputs to search in (0: search in all inputs)"""
    evolve: EvolveConfig = field(default_factory=EvolveConfig)
    """the evolution of C in one iteration"""
    no_event_after: CountOrZero = 0
    """generations before the dream's `no_event_penalty` applies; raise it if early controllers
    learn to stand still"""
    memory_iterations: Count = 1
    """evolve in an ensemble of the last N iterations' memories that share the current V; C sees h
    of the newest; raise it if C exploits one M"""
    warm_start: bool = True
    """begin each evolution at the last selected controller instead of at zero"""

    def _check(self) -> None:
        if self.normalize and self.components:
            self.refuse("normalize", "False with components, which standardise already")


@dataclass(frozen=True)
class ResidualStageConfig(Config):
    """A bounded change of the chosen C, learnt in the dream of its M; kept if it scores better."""

    enabled: bool = False
    """learn a residual policy after the final selection; it costs time and selection frames"""
    training: PolicyTrainConfig = field(default_factory=residual_training)
    """training of the residual policy"""

    def _check(self) -> None:
        if not self.training.network.residual > 0:
            self.refuse("training.network.residual", "above 0")


@dataclass(frozen=True)
class EnsembleStageConfig(Config):
    """Whether the other finalists join the run's agent in an ensemble."""

    enabled: bool = False
    """try ensembles of the agent and other finalists; it takes time and often scores better"""


@dataclass(frozen=True)
class SelectionConfig(Config):
    """The small validation by real episodes that chooses between checkpoints."""

    episodes: Count = 16
    """real episodes per checkpoint, on the same seeds for all; more choose more reliably"""
    early_episodes: Count | None = None
    """episodes per checkpoint before the last `late_iterations`, the only ones that can then give
    the run's agent; set it to save frames (None: same as `episodes`)"""
    late_iterations: Count = 3
    """last iterations that early_episodes does not apply to"""
    finalists: Count = 3
    """best iterations whose agents are compared again in the final selection"""
    final_episodes: CountOrZero = 32
    """real episodes per finalist, on other seeds; 0 takes the best agent so far"""
    seed: Seed = SELECTION_SEED_START
    """first selection seed; change it to select on other episodes"""
    max_steps: Count | None = None
    """limit of selection episodes, in steps (None: the environment's)"""
    reward_bound: float | None = None
    """largest mean reward per step that the environment can pay; a dream above it raises an alarm
    (None: unknown)"""

    def _check(self) -> None:
        if (self.early_episodes or 0) > self.episodes:
            self.refuse("early_episodes", f"from 1 to episodes ({self.episodes}), or None")
        last = self.seed + 3 * (self.episodes + self.final_episodes)
        if self.seed < SELECTION_SEED_START or last > TEST_SEED_START:
            self.refuse("seed", f"from {SELECTION_SEED_START} to below {TEST_SEED_START}")

    def episodes_of(self, number: int, iterations: int) -> int:
        """Episodes per checkpoint in one of so many iterations."""
        late = number >= iterations - self.late_iterations
        return self.episodes if late or self.early_episodes is None else self.early_episodes


@dataclass(frozen=True)
class TestConfig(Config):
    """The final test, on the published seeds."""

    __test__ = False  # tells pytest that this is not a test class
    episodes: Episodes = NUM_TEST_SEEDS
    """test episodes; fewer are faster and less certain"""
    seed: Annotated[int, AtLeast(TEST_SEED_START), Limit(10**9)] = TEST_SEED_START
    """first test seed; the published test begins at 1000000"""
    max_steps: Count | None = None
    """limit of test episodes, in steps, for trials only (None: the environment's)"""
    random_policy: bool = True
    """also test random actions on the same seeds, for the report"""
    constant_action: bool = field(default=True, metadata={"omit_default": True})
    """also test the best constant action on the same seeds; selection seeds choose it"""
    videos: bool = True
    """film the best, the median and the worst episode; turn it off to save time"""


@dataclass(frozen=True)
class FromScratchConfig(Config):
    """The last iterations train M from scratch on all frames so far, and the first of them V too.

    So they forget the first, random frames, and make other errors than earlier models.
    """

    iterations: CountOrZero = 0
    """last iterations that train from scratch; raise it where time allows, for a better agent"""
    vision_steps: Count | None = None
    """gradient steps of V from scratch (None: same as in the first iteration)"""
    memory_steps: Count | None = None
    """gradient steps of each M from scratch (None: same as in the first iteration)"""


@dataclass(frozen=True)
class RunConfig(Config):
    """The whole pipeline."""

    env_id: Annotated[str, tyro.conf.arg(name="env")] = DEFAULT_ENV
    """Gymnasium id, or `module:Id-v0`; --obs-key KEY chooses one of its images, --env-kwargs
    '{"name": value}' passes arguments"""
    test_env_id: Annotated[str | None, tyro.conf.arg(name="test-env")] = None
    """environment of the final test (default: the same, or the original of a faster
    version)"""
    iterations: Count = 5
    """times that collect, V, M, C and selection are repeated; more improve the agent"""
    action_repeat: Repeat = 1
    """environment steps per action and per step of M; raise it where a step changes little"""
    frame_rows: Size | None = None
    """rows of the frames to keep, from the top; set it to cut off a status bar (None: the
    task's)"""
    crop: Crop | None = field(default=None, metadata={"omit_default": True})
    """pixels of the frames to crop at the top, bottom, left and right, such as a status bar
    (None: the task's)"""
    horizontal_flip: bool = False
    """also train V and M on the horizontal flip of every episode, which doubles the data; only for
    tasks with that symmetry, such as CarRacing"""
    from_scratch: FromScratchConfig = field(default_factory=FromScratchConfig)
    """last iterations that train V and M from scratch"""
    experience: ExperienceConfig = field(default_factory=ExperienceConfig)
    """collection of episodes"""
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
    """validation by real episodes"""
    residual: ResidualStageConfig = field(default_factory=ResidualStageConfig)
    """a learnt, bounded change of the chosen C"""
    ensemble: EnsembleStageConfig = field(default_factory=EnsembleStageConfig)
    """several iterations' agents as one"""
    test: TestConfig = field(default_factory=TestConfig)
    """the final test"""
    made_for: str | None = field(default=None, metadata={"omit_default": True})
    """task or environment that the settings were chosen for; another one's run refuses them
    (None: they are for any)"""

    def _check(self) -> None:
        cfg = self.experience
        total = cfg.explore_episodes + (self.iterations - 1) * cfg.agent_episodes
        if total > TRAINING_SEED_LIMIT:
            limit = f"the {TRAINING_SEED_LIMIT:,} training seeds"
            self.refuse("iterations", f"so small that {limit} are enough for {total:,} episodes")
        if self.controller.inputs == "zhc" and not KINDS[self.memory.kind][1].has_cell:
            allowed = f"zh or z with memory.kind {self.memory.kind}, which has no cell c"
            self.refuse("controller.inputs", allowed)
        if self.dream.backend == "kernels" and self.memory.kind != "lstm":
            allowed = f"torch or auto with memory.kind {self.memory.kind}, which has no kernels"
            self.refuse("dream.backend", allowed)

    def check_fits(self, spec: ActionSpec) -> None:
        """Refuse settings for another environment, or for other actions, before anything runs."""
        if self.made_for not in (None, self.env_id, task_for(self.env_id).name):
            raise UserError(
                f"the settings are for {self.made_for}, and env_id is {self.env_id}: begin with "
                f"quick({self.env_id!r}), smoke or full, or set made_for to None to keep them"
            )
        own = self.experience
        if spec.kind == "box":
            if self.controller.discrete != "argmax":
                self.refuse("controller.discrete", "argmax where actions are numbers (Box)")
            return
        if own.explore_bias:
            self.refuse("experience.explore_bias", "empty where actions are choices (Discrete)")
        if own.agent_bias_std:
            self.refuse("experience.agent_bias_std", "0 where actions are choices (Discrete)")
        if max(own.agent_noise) > 1:
            allowed = (
                "from 0 to 1 each where actions are choices (Discrete): fractions of decisions"
            )
            self.refuse("experience.agent_noise", allowed)

    def limited(self, max_steps: int | None) -> RunConfig:
        """The same with no episode longer than so many steps (None: unchanged)."""
        if max_steps is None:
            return self
        limits = self.limits().items()
        return changed(self, {name: min(own or max_steps, max_steps) for name, own in limits})

    def limits(self) -> dict[str, int | None]:
        """Longest episode of each kind by the name of its setting (None: the environment's)."""
        return {name: reduce(getattr, name.split("."), self) for name in LIMITS}  # type: ignore[misc]  # mypy follows no getattr

    def begins_memory(self, number: int) -> bool:
        """Whether M is trained from scratch in an iteration."""
        return number == 0 or number >= self.iterations - self.from_scratch.iterations

    def begins_vision(self, number: int) -> bool:
        """Whether V is trained from scratch in an iteration."""
        return number == 0 or number == self.iterations - self.from_scratch.iterations

    def trains_vision(self, number: int) -> bool:
        """Whether V is trained in an iteration; otherwise the previous one is kept."""
        return number <= self.vision_training.finetune_iterations or self.begins_vision(number)

    def vision_training_of(self, number: int) -> VisionTrainConfig:
        """How V is trained in an iteration."""
        steps = self.from_scratch.vision_steps if number and self.begins_vision(number) else None
        return dataclasses.replace(self.vision_training, steps=steps or self.vision_training.steps)

    def memory_training_of(self, number: int) -> MemoryTrainConfig:
        """How M is trained in an iteration."""
        steps = self.from_scratch.memory_steps if number and self.begins_memory(number) else None
        return dataclasses.replace(self.memory_training, steps=steps or self.memory_training.steps)

    @property
    def frame_spec(self) -> FrameSpec:
        """From the environment's frames to V's."""
        return task_for(self.env_id).frame_spec.changed(self.frame_rows, self.crop)

    @property
    def test_env(self) -> str:
        """Where the agent is tested: the original of a faster environment."""
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
    "test.random_policy": False,
    "test.constant_action": False,
}
"""Every stage once and tiny: under a minute, for tests. The agent learns nothing."""

QUICK: dict[str, Any] = {
    "iterations": 4,
    "from_scratch.iterations": 1,
    "from_scratch.memory_steps": 6000,
    "experience.explore_episodes": 600,
    "experience.explore_scales": (0.2, 0.4, 0.7),
    "experience.agent_noise": (0.0, 0.05, 0.15, 0.3),
    "experience.agent_snapshots": "all",
    "experience.burst_steps": 5,
    "vision.standardized": True,
    "vision_training.adaptive": True,
    "memory_training.exact": True,
    "vision_training.steps": 2400,
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
    "selection.final_episodes": 32,
    "residual.training.actors": 1,
    "ensemble.enabled": True,
    "test.episodes": 20,
}
"""An agent within 30 minutes on two cores; docs/results/lab-notebook.md explains the numbers."""

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
    "residual.training.actors": 2,
    "test.episodes": NUM_TEST_SEEDS,
}
"""The best agent, tested on all seeds: 90 minutes on two cores and a million real frames."""


def _preset(
    name: str, settings: Mapping[str, Any], env_id: str = DEFAULT_ENV, task: Task | None = None
) -> RunConfig:
    """A preset, with what a task (default: the environment's) changes in it."""
    cfg, task = changed(RunConfig(env_id=env_id), settings), task or task_for(env_id)
    own = task.settings.get(name, {})
    return changed(cfg, {**own, "made_for": task.name} if own else {})


PRESETS: dict[str, Callable[..., RunConfig]] = {
    "smoke": partial(_preset, "smoke", SMOKE),
    "quick": partial(_preset, "quick", QUICK),
    "full": partial(_preset, "full", FULL),
}
"""Presets by name; each gives the settings for an environment, as its task has them."""


def _settings(name: str, env_id: str = DEFAULT_ENV) -> RunConfig:
    """A preset for an environment, as `worldmodels run` takes it.

    Unless its task has settings of its own, a few episodes are played to choose them by what they
    show, as `worldmodels check` does; their frames are in no ledger.

    Raises:
        UserError: the environment cannot be made, or nothing can be learnt in it.
    """
    cfg = PRESETS[name](env_id)
    if task_for(env_id).settings:
        return cfg
    frames = cfg.frame_spec
    found = measure(env_id, rows=frames.rows, crop=frames.crop)
    for finding in findings(found):
        if finding.level == "refused":
            raise UserError(f"{env_id}: {finding.text}")
    own = {choice.setting: choice.value for choice in choices(found, name)}
    return changed(cfg, {**own, "made_for": env_id})


smoke = partial(_settings, "smoke")
quick = partial(_settings, "quick")
full = partial(_settings, "full")
