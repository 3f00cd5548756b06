"""Ranges of settings: nothing outside of them is accepted, and the option is named as typed."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pickle
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import tyro

import baselines
import sparse_gan
import worldmodels
from worldmodels import cli
from worldmodels._from_json import from_json
from worldmodels.commands import help, parsing
from worldmodels.config import (
    EVEN,
    NOT_EMPTY,
    Above,
    AtLeast,
    Below,
    Config,
    ConfigError,
    Count,
    Fields,
    NotNegative,
    OneOf,
    Positive,
    Seed,
    require,
    types_of,
    unchecked,
    validate,
)
from worldmodels.controller.evolve import EvolveConfig
from worldmodels.presets import PRESETS
from worldmodels.protocols import UserError
from worldmodels.runs import config_hash, read_json

HASHES = {
    "smoke": "21962023946abaf702e3e1814ee65ba33f17919c88c464f1525985ec2034ca08",
    "quick": "c55d1122f63598fe7556927c2142545b2eb3d11b82f05ee6cba3dc28a3191105",
    "full": "fd2276c1c3c8e110454a4d0d171f374bc378d7a49ad3d619edb448d658ff80a6",
}
"""Of the presets; a change of one makes every run of it begin again."""

NOT_FINITE = (math.nan, math.inf, -math.inf)
SUSPECTS = {
    int: (*NOT_FINITE, True, 0.5, 10**40, -(10**40), 10**12, -7, -1, 0, 1, 3, 17, 99),
    float: (*NOT_FINITE, True, "1", 1e300, 1e-300, -1e9, -1.0, -1e-9, 0.0, 0.5, 1.0, 2.0, 1e9),
}
"""Values among which every numeric field must refuse some."""


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_have_kept_their_hashes(name: str) -> None:
    assert config_hash(PRESETS[name]()) == HASHES[name]


# --- every setting of every command


@cache
def command_of(name: str) -> tuple[type, Any]:
    """The dataclass of a subcommand, and one with the preset's values."""
    cls: Any = cli.COMMANDS[name].load()
    command = cls.defaults(PRESETS["smoke"](), {})
    given = {
        f.name: filled(types_of(cls)[f.name])
        for f in dataclasses.fields(cls)
        if getattr(command, f.name) is tyro.MISSING
    }
    return cls, dataclasses.replace(command, **given)


def filled(kind: Any) -> Any:
    """Something for an argument that must be given."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    return ("x",) if get_origin(kind) is tuple else "x"


def numbers(cls: Any, path: Fields = ()) -> Iterator[tuple[Fields, type]]:
    """All numeric fields of a dataclass and of those inside of it: where, and int or float."""
    for name, kind in types_of(cls).items():
        plain = plain_type(kind)
        if dataclasses.is_dataclass(plain):
            yield from numbers(plain, (*path, name))
        elif plain in (int, float):
            yield (*path, name), plain


def plain_type(kind: Any) -> Any:
    """A type without rules, None, or the tuple around it."""
    while get_origin(kind) is not None and get_origin(kind) is not Literal:
        kind = get_args(kind)[0]
    return kind


def changed(obj: Any, path: Fields, value: Any) -> Any:
    """The dataclass with another value, as many tuples deep as the field's type has them."""
    kind = types_of(type(obj))[path[0]]
    if len(path) > 1:
        value = changed(getattr(obj, path[0]), path[1:], value)
    while len(path) == 1 and kind not in (int, float):
        value = (value,) if get_origin(kind) is tuple else value
        kind = get_args(kind)[0]
    return dataclasses.replace(obj, **{path[0]: value})


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_number_of_every_command_is_refused_by_its_option(name: str) -> None:
    cls, command = command_of(name)
    for path, kind in numbers(cls):
        option = f"--{help.option_name(cls, path)}"
        refused = []
        for value in SUSPECTS[kind]:
            with unchecked():
                wrong = changed(command, path, value)
            try:
                validate(wrong, lambda fields: f"--{help.option_name(cls, fields)}")
            except ConfigError as error:
                if error.path[-1] == path[-1]:
                    assert str(error).startswith(f"{option} is "), error
                    refused.append(value)
        missed = [value for value in SUSPECTS[kind][:5] if not any(value is r for r in refused)]
        assert not missed, f"{option} accepts {missed}"
        if kind is int:
            assert {10**40, -(10**40)} <= set(refused), f"{option} has no limit"


def configs() -> list[type[Config]]:
    """Every configuration of the three packages."""
    for package in (worldmodels, baselines, sparse_gan):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found = [*Config.__subclasses__()]
    for cls in found:
        found += cls.__subclasses__()
    return [cls for cls in found if cls.__module__ != __name__]


def test_every_number_of_every_configuration_is_checked_when_it_is_built() -> None:
    found = configs()
    assert {"CollectConfig", "Recipe", "PSDConfig"} <= {cls.__name__ for cls in found}
    for cls in found:
        assert "__post_init__" not in vars(cls), f"{cls.__name__} checks by itself"
        given = {
            f.name: filled(types_of(cls)[f.name])
            for f in dataclasses.fields(cls)  # type: ignore[arg-type]  # all are dataclasses
            if f.default is f.default_factory is dataclasses.MISSING
        }
        with unchecked():
            built = cls(**given)
        for name, kind in types_of(cls).items():
            if plain_type(kind) not in (int, float):
                continue
            for value in NOT_FINITE:
                values = {n: getattr(built, n) for n in types_of(cls)}
                with unchecked():
                    values[name] = getattr(changed(built, (name,), value), name)
                with pytest.raises(ConfigError, match=r"; (it|each) must be"):
                    cls(**values)


def test_no_configuration_is_left_out() -> None:
    """A dataclass that is called a configuration is one."""
    known: set[type] = set(configs())
    for module in list(sys.modules.values()):
        name = getattr(module, "__name__", "")
        if name.split(".")[0] not in ("worldmodels", "baselines", "sparse_gan"):
            continue
        for cls in vars(module).values():
            if isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__ == name:
                if cls.__name__.endswith(("Config", "Args")):
                    assert cls in known, f"{name}.{cls.__name__} is no Config"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("run --vision-training.steps 0", "--vision-training.steps is 0; it must be at least 1"),
        ("run --memory.dropout 1e400", "--memory.dropout is inf; it must be finite"),
        ("run --memory.sigma-floor 1e400", "--memory.sigma-floor is inf; it must be finite"),
        ("run --experience.explore-bias nan", "--experience.explore-bias is ((nan,),); each"),
        ("run --action-repeat 1000000000000", "--action-repeat is 1000000000000; it must be"),
        ("run --residual.training.network.residual 0", "network.residual is 0.0; it must be above"),
        ("run --iterations 7000", "--iterations is 7000; it must be so small"),
        ("run --controller.normalize", "--controller.normalize is True; it must be False"),
        ("collect --burst-probability nan", "--burst-probability is nan; it must be finite"),
        ("study {out} --study.seeds 0", "--study.seeds is 0; it must be at least 1"),
        (  # found when the agent is known, but before anything is written
            "plan --agent car-racing --json {out} --planning.objective.disagreement-penalty 1",
            "--planning.objective.disagreement-penalty is 1.0; it must be 0 without several",
        ),
        (
            "train-policy --agent x --training.network.hidden 9999999",
            "--training.network.hidden is 9999999; it must be at least 1 and at most 65,536",
        ),
    ],
)
def test_a_command_refuses_before_it_writes(
    words: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    more = [] if "{out}" in words or "train-policy" in words else ["--out", str(out)]
    assert cli.main([*words.format(out=out).split(), *more]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1
    assert not out.exists()


# --- the types


@dataclass(frozen=True)
class Inner(Config):
    """A configuration inside of another."""

    rate: Annotated[float, Above(0), Below(1)] = 0.5


@dataclass(frozen=True)
class Outer(Config):
    """One of each kind of field."""

    steps: Count = 1
    limit: Count | None = None
    scale: Positive = 1.0
    noise: Annotated[tuple[NotNegative, ...], NOT_EMPTY] = (0.0,)
    pair: tuple[int, float] = (1, 2.0)
    kind: Literal["a", "b"] = "a"
    flag: bool = True
    side: Annotated[int, OneOf(28, 32)] | None = None
    panel: Annotated[int, EVEN, AtLeast(16)] = 16
    folder: Path = Path("x")
    inner: Inner = field(default_factory=Inner)
    first: Inner | None = None

    def _check(self) -> None:
        if self.limit is not None and self.limit < self.steps:
            self.refuse("limit", f"at least steps ({self.steps})")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": 0}, "Outer.steps is 0; it must be at least 1"),
        ({"steps": True}, "Outer.steps is True; it must be a whole number, at least 1"),
        ({"steps": 2.0}, "Outer.steps is 2.0; it must be a whole number, at least 1"),
        ({"steps": 10**10}, "it must be at least 1 and at most 2,147,483,648"),
        ({"steps": 10**5000}, "Outer.steps is a number of more than 4,300 digits; it must be"),
        ({"limit": 0}, "Outer.limit is 0; it must be at least 1, or None"),
        ({"limit": 2, "steps": 3}, "Outer.limit is 2; it must be at least steps (3)"),
        ({"scale": math.nan}, "Outer.scale is nan; it must be finite and above 0"),
        ({"scale": 1e300}, "Outer.scale is 1e+300; it must be at most 3.4e+38 in size"),
        ({"scale": 1e-60}, "Outer.scale is 1e-60; it must be above 0 in single precision"),
        ({"scale": "1"}, "Outer.scale is '1'; it must be a number, above 0"),
        ({"noise": ()}, "Outer.noise is (); it must have at least one entry"),
        ({"noise": (0.0, -1.0)}, "Outer.noise is (0.0, -1.0); each must be at least 0"),
        ({"noise": [0.0]}, "Outer.noise is [0.0]; it must be a tuple"),
        ({"pair": (1,)}, "Outer.pair is (1,); it must be 2 values"),
        ({"kind": "c"}, "Outer.kind is 'c'; it must be one of a, b"),
        ({"flag": 1}, "Outer.flag is 1; it must be True or False"),
        ({"side": 30}, "Outer.side is 30; it must be one of 28, 32, or None"),
        ({"panel": 17}, "Outer.panel is 17; it must be even and at least 16"),
        ({"folder": 3}, "Outer.folder is 3; it must be a path"),
        ({"inner": {}}, "Outer.inner is {}; it must be of class Inner"),
    ],
)
def test_what_a_type_does_not_allow_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        Outer(**values)
    assert says in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_what_a_type_allows_stays_as_it_was_given() -> None:
    cfg = Outer(scale=2, noise=(0, 1), limit=5, side=28, first=Inner(0.1), folder=Path("/a"))
    assert type(cfg.scale) is int and cfg.noise == (0, 1)


def test_an_error_crosses_to_another_process() -> None:
    with pytest.raises(ConfigError) as caught:
        Inner(rate=2.0)
    other = pickle.loads(pickle.dumps(caught.value))
    assert str(other) == str(caught.value) == "Inner.rate is 2.0; it must be above 0 and below 1"


def test_an_argument_is_checked_like_a_field() -> None:
    require("seed", 3, Seed)
    with pytest.raises(UserError, match=r"^seed is -1; it must be at least 0$"):
        require("seed", -1, Seed)


# --- JSON


def test_json_and_back() -> None:
    cfg = from_json(
        Outer, {"noise": [1, 2.5], "pair": [3, 4], "inner": {"rate": 0.1}, "folder": "/a"}
    )
    assert cfg == Outer(noise=(1, 2.5), pair=(3, 4), inner=Inner(0.1), folder=Path("/a"))
    assert from_json(Outer, {"first": {"rate": 0.2}}).first == Inner(0.2)
    assert from_json(Outer, {"more": 1}, ignore_unknown=True) == Outer()


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ([], "a.json is []; it must be an object"),
        ({"inner": 3}, "a.json: inner is 3; it must be an object"),
        ({"inner": None}, "a.json: inner is None; it must be an object"),
        ({"inner": {"rate": 2}}, "a.json: inner.rate is 2; it must be above 0 and below 1"),
        ({"inner": {"rat": 2}}, "a.json: inner has the unknown field 'rat'"),
        ({"more": 1}, "a.json has the unknown field 'more'"),
        ({"noise": 3}, "a.json: noise is 3; it must be a tuple"),
        ({"noise": [[1]]}, "a.json: noise is ([1],); each must be a number, at least 0"),
        ({"noise": [None]}, "a.json: noise is (None,); each must be a number, at least 0"),
        ({"steps": "5"}, "a.json: steps is '5'; it must be a whole number"),
        ({"limit": 1, "steps": 2}, "a.json: limit is 1; it must be at least steps (2)"),
    ],
)
def test_wrong_json_is_named_by_its_place(record: Any, says: str) -> None:
    with pytest.raises(UserError) as caught:
        from_json(Outer, record, "a.json: ")
    assert str(caught.value).startswith(says)


def test_a_field_that_is_gone_is_read_only_where_it_changed_nothing() -> None:
    assert from_json(EvolveConfig, {"restart_patience": 0}) == EvolveConfig()
    with pytest.raises(UserError, match=r"restart_patience is 20; it is gone since, and only 0"):
        from_json(EvolveConfig, {"restart_patience": 20})


def test_a_field_without_a_default_may_not_be_missing() -> None:
    @dataclass(frozen=True)
    class Named(Config):
        name: str

    with pytest.raises(UserError, match=r"^a\.json lacks name$"):
        from_json(Named, {}, "a.json: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested deeper than 64"),
        (f'{{"a": {"9" * 5000}}}', "needs more than 64 bits"),
        ('{"a": 1e400}', "1e400 is not a finite number"),
        ('{"a": NaN}', "NaN is not a finite number"),
        ('{"a": -Infinity}', "-Infinity is not a finite number"),
        ('{"a": ', "Expecting value"),
    ],
    ids=["deep", "long", "large", "nan", "infinite", "torn"],
)
def test_json_that_cannot_be_used_is_one_error(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "a{0}.json"
    file.write_text(text)
    with pytest.raises(UserError, match=rf"a\{{0\}}\.json is not valid JSON \(.*{says}"):
        read_json(file)


# --- names of options


@dataclass(frozen=True)
class Task:
    """A command with two configurations of one class and one of another."""

    out: Path = Path("x")
    workers: int = 1
    left: Inner = field(default_factory=Inner)
    right: Inner = field(default_factory=Inner)
    run: Annotated[Outer, tyro.conf.arg(name="")] = field(default_factory=Outer)


def test_two_configurations_of_one_class_are_told_apart() -> None:
    with pytest.raises(UserError, match=r"^--right\.rate is 3\.0; it must be"):
        parsing.read(Task, args=["--right.rate", "3"])
    with pytest.raises(UserError, match=r"^--inner\.rate is 3\.0; it must be"):
        parsing.read(Task, args=["--inner.rate", "3"])
    with pytest.raises(UserError, match=r"^--steps is 0; it must be"):
        parsing.read(Task, args=["--steps", "0"])


def test_what_is_refused_at_work_is_named_by_its_option() -> None:
    task = Task(workers=5)

    def named(error: ConfigError) -> str:
        with pytest.raises(ConfigError) as caught, parsing.naming_options(task):
            raise error
        return str(caught.value).split(" is ")[0]

    assert named(ConfigError(object, ("workers",), 5, "it must be less", "workers")) == "--workers"
    assert named(ConfigError(object, ("workers",), 6, "it must be less", "workers")) == "workers"
    assert named(ConfigError(Outer, ("steps",), 1, "it must be more")) == "--steps"
    assert named(ConfigError(Inner, ("rate",), 0.5, "it must be more")) == "Inner.rate"
    assert named(ConfigError(Outer, ("steps",), 1, "it must", "a.json: steps")) == "a.json: steps"


def test_help_says_what_it_said_without_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train-memory", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--memory.hidden-size INT" in shown and "Annotated" not in shown
