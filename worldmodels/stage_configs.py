"""The settings of each stage of the pipeline: one frozen dataclass for each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

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
    Seed,
    Size,
    SizeOrZero,
)
from worldmodels.controller.evolve import EvolveConfig
from worldmodels.controller.linear import Discrete, Inputs
from worldmodels.experience.collect import GroupSize, TrainingEpisodes
from worldmodels.memory.interface import MemoryConfig
from worldmodels.memory.kinds import KINDS, Kind
from worldmodels.memory.rewards import RewardKind
from worldmodels.planning.streams import PolicyTrainConfig, residual_training
from worldmodels.protocols import (
    NUM_TEST_SEEDS,
    SELECTION_SEED_START,
    TEST_SEED_START,
)

ROUNDING = 1e-6
"""Relative error of a sum of rewards."""
MOST_EPISODES = 3000
"""Episodes of a later iteration at most, where these go on until they have enough frames."""


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
    agent_frames: Count | None = field(default=None, metadata={"omit_default": True})
    """steps of each later iteration: where agent_episodes are short, more follow until there are so
    many, at most 3,000 episodes in all (None: agent_episodes alone)"""
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
    agent_random_starts: Fraction = field(default=0.0, metadata={"omit_default": True})
    """fraction of the agent's episodes that begin with 1 to burst_steps random actions; raise it
    where the agent's first steps are always the same"""
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

    @property
    def most_agent_episodes(self) -> int:
        """Episodes that a later iteration has at most."""
        return max(self.agent_episodes, MOST_EPISODES if self.agent_frames else 0)

    def of_random_actions(self) -> ExperienceConfig:
        """These settings, with those that only the agents' episodes have at their defaults."""
        names = [own.name for own in dataclasses.fields(self)]
        agents = [name for name in names if name.startswith(("agent_", "burst_"))]
        defaults: dict[str, Any] = {name: getattr(ExperienceConfig(), name) for name in agents}
        return dataclasses.replace(self, **defaults)


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
    """event: a rare event or a goal above a constant; count: several events per step; two_hot: any
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
    beginnings: Fraction = field(default=0.0, metadata={"omit_default": True})
    """fraction of the states that are the first of their episode; raise it where what is done first
    decides"""
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
    enough: float | None = field(default=None, metadata={"omit_default": True})
    """mean return at which no other iteration follows, if every checkpoint of an iteration reaches
    it, and the best one in `final_episodes` more; set it to the most that can be reached (None: all
    iterations)"""

    def _check(self) -> None:
        if (self.early_episodes or 0) > self.episodes:
            self.refuse("early_episodes", f"from 1 to episodes ({self.episodes}), or None")
        last = self.seed + 3 * (self.episodes + self.final_episodes)
        if self.seed < SELECTION_SEED_START or last > TEST_SEED_START:
            self.refuse("seed", f"from {SELECTION_SEED_START} to below {TEST_SEED_START}")

    def is_enough(self, mean: float) -> bool:
        """Whether a mean return is the most that can be reached, as `enough` has it."""
        enough = self.enough
        return enough is not None and mean >= enough - ROUNDING * abs(enough)

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
