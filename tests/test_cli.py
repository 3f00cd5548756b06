"""The command line: presets and flags become configurations, mistakes one line and status 2."""

from __future__ import annotations

import dataclasses
import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.experience.fakes import BOX
from worldmodels import __version__, cli
from worldmodels.commands import help, parsing
from worldmodels.commands.collect import Collect
from worldmodels.commands.evaluate import Evaluate
from worldmodels.commands.planning import TrainPolicy
from worldmodels.commands.run import Run
from worldmodels.presets import PRESETS
from worldmodels.protocols import SHIPPED, UserError, shipped
from worldmodels.runs import read_json, write_json

NESTED = "explore_bias"  # centres of several numbers each, of which flags can tell only one


def leaves(cfg: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flag and value of every setting of a configuration."""
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        flag = prefix + field.name.rstrip("_").replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{flag}.")
        elif field.name != NESTED:
            yield flag, value


def as_words(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        head, _, tail = flag.rpartition(".")
        name = tail if value else f"no-{tail}"
        return [f"--{head}.{name}" if head else f"--{name}"]
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{flag}", *map(str, values)]


def parse_run(*words: str) -> Run:
    return parsing.parse(Run, words, "worldmodels run")


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a mistake is told in."""
    assert cli.main(words) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert "Traceback" not in line
    return line


# --- presets and flags


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_alone_gives_its_configuration(name: str) -> None:
    run = parse_run("--preset", name)
    assert run.config == PRESETS[name]()
    assert (run.preset, run.out, run.seed, run.placement.workers) == (
        name,
        Path("runs") / name,
        0,
        None,
    )


def test_no_preset_is_the_quick_one() -> None:
    assert parse_run() == parse_run("--preset=quick")


@pytest.mark.parametrize(("base", "target"), [("smoke", "full"), ("quick", "smoke")])
def test_every_setting_is_a_flag(base: str, target: str) -> None:
    wanted = PRESETS[target]()
    given = [(flag, value) for flag, value in leaves(wanted) if flag not in Run.unused]
    words = [word for flag, value in given for word in as_words(flag, value)]
    found = parse_run("--preset", base, *words).config
    bias = PRESETS[base]().experience.explore_bias
    experience = dataclasses.replace(wanted.experience, explore_bias=bias)
    assert found == dataclasses.replace(wanted, experience=experience)


def test_a_residual_pays_for_no_event_in_car_racing_only(tmp_path: Path) -> None:
    def penalty(agent: str) -> float:
        words = ["--agent", agent, "--policy", "residual"]
        return parsing.parse(TrainPolicy, words, "").training.no_event_penalty

    config = read_json(SHIPPED / "car-racing" / "config.json")
    write_json(tmp_path / "config.json", {**config, "env_id": "CartPole-v1"})
    assert (penalty("car-racing"), penalty(str(tmp_path))) == (2.0, 0.0)


def test_single_settings_change_and_others_stay() -> None:
    words = ["--iterations", "3", "--dream.temperature", "1.1", "--test.no-videos", "--seed=7"]
    run = parse_run("--preset", "smoke", "--out", "runs/x", *words, "--workers", "2")
    smoke = PRESETS["smoke"]()
    assert run.config == dataclasses.replace(
        smoke,
        iterations=3,
        dream=dataclasses.replace(smoke.dream, temperature=1.1),
        test=dataclasses.replace(smoke.test, videos=False),
    )
    assert (run.out, run.seed, run.placement.workers) == (Path("runs/x"), 7, 2)


@pytest.mark.parametrize(
    "words", [["--env", "a:B-v0"], ["--env-id=a:B-v0"], ["--env_id", "a:B-v0"]]
)
def test_env_and_env_id_are_the_same_everywhere(words: list[str]) -> None:
    assert parse_run("--no-check", *words).config.env_id == "a:B-v0"
    collect = parsing.parse(Collect, ["--out", "x", *words], "")
    assert collect.env_id == "a:B-v0"
    assert parsing.parse(Evaluate, ["--agent", "random", *words], "").env == "a:B-v0"


def test_the_task_of_an_environment_changes_the_preset_and_flags_change_the_task() -> None:
    other = parse_run("--no-check", "--preset", "quick", "--env-id", "Other-v0").config
    assert (other.experience.patience, other.horizontal_flip, other.dream.no_event_penalty) == (
        None,
        False,
        0,
    )
    kept = parse_run("--no-check", "--env-id", "O-v0", "--experience.patience", "5").config
    assert kept.experience.patience == 5


def test_collect_has_other_defaults_where_an_agent_drives() -> None:
    cfg = PRESETS["smoke"]().experience
    words = ["--preset", "smoke", "--out", "x"]
    assert parsing.parse(Collect, words, "").episodes == cfg.explore_episodes
    by_agent = parsing.parse(Collect, [*words, "--agent", "a"], "")
    assert by_agent.episodes == cfg.agent_episodes
    assert by_agent.max_steps == cfg.agent_steps


# --- help and version


@pytest.mark.parametrize("width", ["80", "100"])
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_is_short_and_help_all_shows_the_rest(
    name: str, width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    command: Any = cli.COMMANDS[name].load()
    options = list(help.options(command, command.defaults(PRESETS["quick"](), {})))
    names = {option.name for option in options}
    common = set(command.common.split()) | {o.name for o in options if o.required}
    assert common | set(command.unused) <= names
    assert not [option.name for option in options if not option.text.split(" (default")[0]]
    every = names - set(command.unused)
    for word, expected in (("--help", common if command.common else every), ("--help-all", every)):
        assert cli.main([name, word]) == 0
        text = capsys.readouterr().out
        lines = text.splitlines()
        assert text.startswith(f"usage: worldmodels {name} ")
        assert f": worldmodels {name} --help-all" in lines[-1]
        assert max(map(len, lines)) <= int(width)
        assert word == "--help-all" or len(lines) <= 60
        shown = {
            o.name for o in options if any(f"{line} ".startswith(f"  {o.usage} ") for line in lines)
        }
        assert shown == expected


def test_a_commands_help_loads_nothing_heavy_and_leaves_nothing_behind() -> None:
    code = """
import sys
from worldmodels import cli
for name in cli.COMMANDS:
    assert cli.main([name, "--help"]) == 0
    assert not {"torch", "numba", "scipy", "matplotlib"}.intersection(sys.modules), name
from worldmodels.vision.vae import ConvVAE, VAEConfig
assert ConvVAE(VAEConfig(width=8)).cfg.width == 8
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_has_the_presets_defaults_and_the_environments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = []
    for words in (["--preset", "smoke"], ["--preset", "full"], ["--env-id", BOX]):
        assert cli.main(["run", *words, "--help-all"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert f"(default: {words[1]})" in text
        found.append(text.partition("--experience.explore-episodes")[2].partition("--")[0])
    assert len(set(found)) == 2  # the environment has no task of its own


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help_lists_all_subcommands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in cli.COMMANDS)
    assert max(map(len, text.splitlines())) <= 100


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"worldmodels {__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from worldmodels.cli import main; main(['--help']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'tyro', 'numba', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


# --- mistakes


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("trian-vision", "did you mean 'train-vision'?"),
        ("nonsense", "there are check, run, collect,"),
        ("run --preset big", "--preset is 'big'; it must be one of smoke, quick, full"),
        ("run --out {out} --env-id CarRacin-v3", "did you mean CarRacing-v3"),
        ("run --out {out} --env-id CartPole-v1 --obs-key x", "no Dict; leave it out"),
        ("run --dream.temperature -1", "--dream.temperature is -1.0; it must be at least 0"),
        ("run --iterations 0", "error: --iterations is 0; it must be at least 1"),
        (
            "run --controller.evolve.strategy.population 2",
            "--controller.evolve.strategy.population is 2",
        ),
        (
            "collect --out {out} --used 399999 --episodes 2 --workers 1",
            "2 episodes after 399999 others need more seeds than collection has: 400000",
        ),
        ("run --vision.z-dim 0", "--vision.z-dim is 0"),
        ("run --out {out} --preset smoke --seed -1", "--seed is -1"),
        ("collect --out {out} --episodes 0", "--episodes is 0; it must be at least 1"),
        ("collect --out {out} --scale", "--scale is (); it must have at least one entry"),
        ("collect --out {out} --env-id Nowhere-v0 --workers 1", "'Nowhere-v0' is unknown"),
        ("collect --out {out} --agent nobody", "no agent 'nobody'"),
        ("train-vision --data {out}/none --out {out}/v.pt", "no folder of episodes"),
        ("train-memory --latents {out}/none --out {out}/m.pt", "`worldmodels encode` makes one"),
        ("evaluate --agent nobody", "the package comes with"),
        ("evaluate --agent random --episodes 0", "--episodes is 0"),
        ("evaluate --agent random --resume", "give --json too"),
        ("report --run {out}/none", "is not a run folder"),
        ("play --agent random", "the package comes with: car-racing"),
        ("play --agent nobody --keyboard", "there is no display"),
        ("play --agent nobody --video {out}/f.mp4", "no agent 'nobody'"),
        ("play --agent nobody --max-steps 0", "--max-steps is 0"),
    ],
)
def test_a_mistake_is_one_line(
    words: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert named in fails(capsys, *words.format(out=out).split())
    written = [path for path in out.rglob("*") if path.is_file()]
    assert not written
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "words", ["run --nonsense", "run --iterations many", "train-vision --out x", "collect"]
)
def test_flags_that_cannot_be_read_end_with_status_2(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_installed_command_shows_no_traceback() -> None:
    command = [sys.executable, "-m", "worldmodels", "report", "--run", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere is not a run folder")
    assert done.stdout == ""


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [sys.executable, "-u", "-m", "worldmodels", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("problem", "status", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 2, "the disk is full at a/b"),
        (OSError(errno.EDQUOT, "Quota"), 2, "error: the disk is full;"),
        (UserError("two\n  lines"), 2, "error: two lines\n"),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to resume"),
    ],
)
def test_expected_ends(
    problem: BaseException, status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise problem

    assert cli.guarded(work) == status
    assert told in capsys.readouterr().err


def test_faults_of_ours_keep_their_traceback() -> None:
    def work() -> None:
        raise FileNotFoundError("internal")

    with pytest.raises(FileNotFoundError):
        cli.guarded(work)


@pytest.mark.parametrize("command", ["play", "evaluate", "plan", "train-policy"])
def test_the_packages_agent_is_the_default(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    names = shipped()
    assert f"; one of {', '.join(names)}, FOLDER (default: car-racing)" in said
    assert cli.main(["--help"]) == 0
    assert f"Agents in the package: {', '.join(names)}." in capsys.readouterr().out
