"""The page of a comparison: the right numbers, traced to files, and warnings where they are due."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import trim_mean

from baselines import words
from baselines.charts import pictures
from baselines.compare import build_comparison
from baselines.comparison import compare
from baselines.results import Run, read_runs
from tests.pages.parser import standing_alone
from worldmodels import cli, runs
from worldmodels.pages.text import interval
from worldmodels.protocols import UserError

TRACKS = range(1_000_000, 1_000_020)


def evaluation(
    mean: float, seed: int = 0, tracks: range = TRACKS, **changes: Any
) -> dict[str, Any]:
    """What `worldmodels evaluate` writes, in part."""
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(1).normal(0, 40, 200)
    values = [mean + hard[t - 1_000_000] + rng.normal(0, 10) for t in tracks]
    record = {
        "agent": "agent",
        "env": "CarRacing-v3",
        "deterministic": True,
        "versions": {"gymnasium": "1.4.0", "box2d": "2.3.10"},
        "episodes": [
            {"seed": t, "return": v, "length": 1000} for t, v in zip(tracks, values, strict=True)
        ],
    }
    return {**record, **changes}


def ppo_run(folder: Path, seed: int, mean: float, method: str = "ppo-v3") -> Path:
    """A baseline's run folder with curve, ledger and both tests."""
    config = {"method": method, "seed": seed, "frames": 300_000}
    machine = {"cpu": "A chip", "cores": 2}
    runs.write_json(
        folder / "config.json", {"schema": 1, "config": config, "machine": machine, "versions": {}}
    )
    totals = {"collection": 0, "model_free": 300_000, "selection": 24_000, "test": 20_000}
    runs.write_json(folder / "frames.json", {"entries": [], "totals": {**totals, "dream": 0}})
    points = [
        {
            "step": k,
            "frames": 100_000 * k,
            "real_frames": 108_000 * k,
            "seconds": 900.0 * k,
            "mean": mean * k / 3 + seed,
            "returns": [mean],
        }
        for k in (1, 2, 3)
    ]
    runs.write_json(folder / "curve.json", {"training_seconds": 2700.0, "points": points})
    runs.write_json(folder / "evaluation.json", evaluation(mean, seed))
    runs.write_json(folder / "evaluation_last.json", evaluation(mean - 50, seed))
    return folder


def world_run(folder: Path, mean: float = 800.0) -> Path:
    """A run folder of `worldmodels run`, two rounds."""
    config = {"preset": "quick", "seed": 0, "test_env_id": "CarRacing-v3"}
    runs.write_json(folder / "config.json", {"schema": 1, "config": config, "machine": {}})
    run = runs.RunFolder(folder)
    for kind, frames, key in (
        ("collection", 100, "collect/00/a"),
        ("selection", 10, "select/00/a"),
        ("collection", 200, "collect/01/a"),
        ("selection", 20, "select/01/a"),
        ("selection", 5, "final/a"),
        ("test", 7, "test/a"),
    ):
        run.ledger.add(kind, frames, key)
    for iteration, best in enumerate((300.0, 700.0)):
        run.log("selection", iteration=iteration, generation=10, real_mean=best - 50)
        run.log("selection", iteration=iteration, generation=20, real_mean=best)
        for name, seconds in (("vision", 60.0), ("controller", 40.0), ("select", 9.0)):
            run.log("stage", name=name, iteration=iteration, seconds=seconds)
    runs.write_json(folder / "evaluation.json", evaluation(mean))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of PPO, one of the pipeline, a random policy, and a list of them all."""
    folder = tmp_path_factory.mktemp("results")
    for seed, mean in enumerate((500.0, 560.0, 620.0)):
        ppo_run(folder / f"ppo-{seed}", seed, mean)
    world_run(folder / "world")
    runs.write_json(folder / "random.json", evaluation(-30, agent="random"))
    listed = ["ppo-0", "ppo-1", "ppo-2", "dreamer=world", "random.json"]
    runs.write_json(folder / "list.json", {"runs": listed})
    return folder


@pytest.fixture(scope="module")
def page(home: Path) -> Path:
    """The comparison of the list."""
    return build_comparison([str(home / "list.json")], home / "page")


def test_the_page_has_the_numbers_of_the_json(home: Path, page: Path) -> None:
    html = page.read_text()
    standing_alone(html)
    assert "dreamer has the highest mean return" in html.split("<main")[0]
    assert html.index('aria-label="Mean returns') < html.index('id="warnings"')
    found = runs.read_json(page.with_suffix(".json"))
    methods = {method["name"]: method for method in found["methods"]}
    assert list(methods) == ["ppo-v3", "dreamer", "random policy"]
    scores = [
        [e["return"] for e in runs.read_json(home / f"ppo-{k}/evaluation.json")["episodes"]]
        for k in range(3)
    ]
    assert methods["ppo-v3"]["mean"]["value"] == pytest.approx(np.mean(scores))
    assert methods["ppo-v3"]["iqm"]["value"] == pytest.approx(trim_mean(np.ravel(scores), 0.25))
    for name in ("mean", "iqm"):
        value = methods["ppo-v3"][name]
        shown, _, ends = interval(value["value"], value["low"], value["high"]).partition(" (")
        assert f">{shown}<small>{ends.rstrip(')')}</small><" in html
    assert f">{np.mean(scores) - 50:.0f}</td>" in html  # the last checkpoints
    for text in (*found["warnings"], *found["conclusions"]):
        assert text.replace("'", "&#39;") in html


def test_the_same_results_give_the_same_bytes(home: Path, page: Path, tmp_path: Path) -> None:
    again = build_comparison([str(home / "list.json")], tmp_path, pictures=False)
    assert not (tmp_path / "pictures").exists()
    for suffix in (".html", ".json"):
        assert again.with_suffix(suffix).read_bytes() == page.with_suffix(suffix).read_bytes()
    pictures(compare(read_runs([str(home / "list.json")])))[2].save(tmp_path)
    for kind in ("svg", "png"):
        first = page.parent / f"pictures/means.{kind}"
        assert (tmp_path / f"means.{kind}").read_bytes() == first.read_bytes()


def test_every_run_is_traced_to_its_files(home: Path, page: Path) -> None:
    for record in runs.read_json(page.with_suffix(".json"))["runs"]:
        folder = home / record["path"]
        folder = folder.parent if folder.is_file() else folder
        assert record["sha256"]
        for name, digest in record["sha256"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
            assert digest in page.read_text()


def test_pictures_are_fit_for_paper(page: Path) -> None:
    folder = page.parent / "pictures"
    stems = ("curves-frames", "curves-seconds", "means", "profiles", "improvement", "differences")
    names = {path.name for path in folder.iterdir()}
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")}
    for stem in stems:
        assert Image.open(folder / f"{stem}.png").width > 1000
        vector = (folder / f"{stem}.svg").read_text()
        assert "#0f00" not in vector  # no placeholder of the page's colours is left
        assert "var(--" not in vector


def test_curves_of_the_pipeline_come_from_metrics_and_ledger(home: Path) -> None:
    (run,) = read_runs([str(home / "world")])
    assert run.method == "world model (quick)"
    assert [(p.real_frames, p.seconds, p.mean) for p in run.curve] == [
        (110, 100.0, 300.0),
        (330, 200.0, 700.0),
    ]
    assert run.cost == 335
    assert run.seconds == 200


def test_pairs_are_better_against_worse(home: Path) -> None:
    found = compare(read_runs([str(home / "list.json")]))
    assert [m.name for m in found.tested] == ["dreamer", "ppo-v3", "random policy"]
    (pair,) = [p for p in found.pairs if {p.ours, p.theirs} == {"dreamer", "ppo-v3"}]
    assert pair.ours == "dreamer"
    assert pair.improvement.value == 1
    assert pair.difference.mean.value == pytest.approx(800 - 560, abs=10)
    said = " ".join(words.conclusions(found))
    assert "With a single training run of dreamer, it is open whether the methods do." in said
    assert "ppo-v3 against random policy" in said
    assert "evidence for the method, from 3 runs" in said


def run_of(method: str, seed: int | None = 0, mean: float = 500.0, **changes: Any) -> Run:
    base = Run(
        method=method,
        path="nowhere",
        returns={e["seed"]: e["return"] for e in evaluation(mean, seed or 0)["episodes"]},
        last_returns={},
        env="CarRacing-v3",
        deterministic=True,
        seed=seed,
        frames={"model_free": 1000},
        curve=(),
        seconds=10.0,
        budget=1000,
        versions={"gymnasium": "1.4.0"},
        machine={"cpu": "A", "cores": 2},
        files={},
    )
    return dataclasses.replace(base, **changes)


def many(method: str, mean: float, **changes: Any) -> list[Run]:
    """Five runs with all 100 test tracks, about which there is nothing to warn of."""
    every = range(1_000_000, 1_000_100)
    tests = [evaluation(mean, seed, every)["episodes"] for seed in range(5)]
    return [
        run_of(method, seed, returns={e["seed"]: e["return"] for e in test}, **changes)
        for seed, test in enumerate(tests)
    ]


def test_an_impeccable_comparison_has_no_warning() -> None:
    found = compare([*many("a", 500), *many("b", 600)])
    assert words.warnings(found) == []
    assert "That holds for the methods under this protocol" in words.conclusions(found)[0]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"env": "worldmodels/CarRacing-v3"}, "Different environments of the test"),
        ({"versions": {"gymnasium": "1.3.0"}}, "Different versions of gymnasium"),
        ({"deterministic": False}, "Different action modes"),
        ({"frames": {"model_free": 9000}, "budget": 9000}, "Costs differ: from 1,000"),
        ({"frames": {"model_free": 800}}, "the run is unfinished"),
        ({"machine": {"cpu": "B", "cores": 2}}, "wall-clock times cannot be compared"),
    ],
)
def test_a_different_protocol_warns_in_words(changes: dict[str, Any], text: str) -> None:
    found = compare([*many("a", 500), *many("b", 600, **changes)])
    assert any(text in warning for warning in words.warnings(found)), words.warnings(found)


def test_few_seeds_and_tracks_warn_in_words() -> None:
    one, twice = [run_of("a")], [run_of("b", 1), run_of("b", 1)]
    said = " ".join(words.warnings(compare([*one, *twice])))
    assert "a: one training run. Its interval is over tracks only" in said
    assert "b: 2 training runs. The interval is rough" in said
    assert "b: runs with the same seed are not independent" in said
    assert "20 of the 100 test tracks were evaluated" in said
    untested = run_of("b", 3, returns={})
    assert "1 of its runs have no test yet" in " ".join(words.warnings(compare([*one, untested])))
    elsewhere = run_of("c", returns={7: 1.0})
    found = compare([*one, elsewhere])
    assert "no test track in common" in " ".join(words.warnings(found))
    assert "nothing can be concluded" in words.conclusions(found)[0]
    fewer = run_of("c", returns={1_000_003: 5.0, 1_000_004: 6.0})
    assert "tested on different tracks" in " ".join(words.warnings(compare([*one, fewer])))


def test_runs_that_cannot_be_told_apart_are_said_to_be() -> None:
    found = compare([run_of("a", 0), run_of("b", 1)])
    assert "do not separate the two" in words.conclusions(found)[0]


def test_a_page_without_scores_is_a_page_of_curves(home: Path, tmp_path: Path) -> None:
    run = ppo_run(tmp_path / "run", 0, 400)
    for name in ("evaluation.json", "evaluation_last.json"):
        (run / name).unlink()
    html = build_comparison([str(run)], tmp_path / "out").read_text()
    assert "Not there yet: scores on test tracks of all runs." in html
    assert "Against wall-clock time" in html
    assert "No run was tested" in html


def test_the_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words_given = ["compare", str(home / "list.json"), "--out", str(tmp_path), "--no-pictures"]
    assert cli.main(words_given) == 0
    printed = capsys.readouterr().out
    assert re.search(r"ppo-v3: mean \d+ \(\d+ to \d+\), IQM \d+, 3 runs, 20 tracks", printed)
    assert printed.index("dreamer: mean") < printed.index("ppo-v3: mean")  # best first
    assert "warning: dreamer: one training run" in printed
    assert (tmp_path / "comparison.html").is_file()
    assert cli.main(["compare", str(tmp_path / "missing")]) == 2
    assert "there is neither a folder nor a file" in capsys.readouterr().err


def test_lost_episodes_decide_the_ranking_and_a_contrary_iqm_is_said() -> None:
    steady = [run_of("steady", seed, returns=dict.fromkeys(TRACKS, 850.0)) for seed in range(5)]
    lost = {track: 0.0 if track % 5 == 0 else 900.0 for track in TRACKS}  # a fifth is lost
    fast = [run_of("fast", seed, returns=lost) for seed in range(5)]
    found = compare([*fast, *steady])
    assert [method.name for method in found.tested] == ["steady", "fast"]
    assert [m.figures["mean"].value for m in found.tested] == pytest.approx([850, 720])
    assert [m.figures["iqm"].value for m in found.tested] == pytest.approx([850, 900])
    assert found.tested[1].figures["lost"].value == pytest.approx(0.2)
    assert [(pair.ours, pair.theirs) for pair in found.pairs] == [("steady", "fast")]
    said = words.conclusions(found)[0]
    assert "steady has the higher mean (850 against 720), fast the higher IQM (900" in said
    assert "0% of steady's returns and 20% of fast's are below 600" in said


def test_where_mean_and_iqm_agree_nothing_is_said_of_it() -> None:
    found = compare([*many("a", 500), *many("b", 600)])
    assert not [text for text in words.conclusions(found) if "disagree" in text]


def test_an_agent_without_its_run_is_one_training_and_has_no_ledger(home: Path) -> None:
    runs.write_json(home / "shipped.json", evaluation(900, agent="car-racing (ensemble)"))
    found = compare(read_runs([str(home / "list.json"), f"shipped={home / 'shipped.json'}"]))
    said = " ".join(words.warnings(found))
    assert "shipped: one training run" in said
    assert "shipped: no ledger of frames" in said
    assert "random policy: one training run" not in said  # nobody trained it
    assert "single training run of shipped" in " ".join(words.conclusions(found))


def test_the_committed_results_can_be_compared(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    listed = root / "benchmarks/results/comparison.json"
    page = build_comparison([str(listed)], tmp_path, pictures=False)
    assert "world model (full)" in page.read_text()
    current = (root / "README.md").read_text()  # it has what is now, and nothing else
    for run in runs.read_json(listed)["runs"]:
        folder = run.rpartition("=")[2].split("/")[0]
        assert folder == "2026-11-26-baselines" or f"entries/{folder}.md" in current, run


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to compare"):
        compare([])
    with pytest.raises(UserError, match="it is no run folder"):
        read_runs([str(tmp_path)])
    runs.write_json(tmp_path / "odd.json", {"episodes": [{"seed": 1}]})
    with pytest.raises(UserError, match=r"odd\.json: episodes\[0\] lacks return"):
        read_runs([str(tmp_path / "odd.json")])
    runs.write_json(tmp_path / "list.json", [1])
    with pytest.raises(UserError, match=r"list\.json holds \[1\]; it must be a JSON object"):
        read_runs([str(tmp_path / "list.json")])
    for name, runs_of_it, message in (
        ("number", 3, r"number\.json: runs is 3; it must be a list"),
        ("numbers", [3], r"numbers\.json: runs\[0\] is 3; it must be a text"),
        ("itself", ["itself.json"], r"itself\.json lists itself"),
    ):
        runs.write_json(tmp_path / f"{name}.json", {"runs": runs_of_it})
        with pytest.raises(UserError, match=message):
            read_runs([str(tmp_path / f"{name}.json")])


def test_a_torn_last_line_of_metrics_is_passed_over(tmp_path: Path) -> None:
    folder = world_run(tmp_path / "run")
    (whole,) = read_runs([str(folder)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "sel')
    (torn,) = read_runs([str(folder)])
    assert torn.curve == whole.curve
    (folder / "metrics.jsonl").write_text('{"stage": "selection", "real_mean": []}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1: real_mean is \[\]"):
        read_runs([str(folder)])


def test_methods_may_have_any_name(tmp_path: Path) -> None:
    names = ["a $\\frac$ [/b]", "_x <b>&amp;", "$x$ | ü"]
    for number in range(len(names)):
        runs.write_json(tmp_path / f"{number}.json", evaluation(700 + number, number))
    specs = [f"{name}={tmp_path / f'{number}.json'}" for number, name in enumerate(names)]
    page = build_comparison(specs, tmp_path / "out [/b]", pictures=True)
    text = page.read_text()
    assert "_x &lt;b&gt;&amp;amp;" in text and "_x <b>" not in text
    svg = (page.parent / "pictures" / "means.svg").read_text()
    assert (page.parent / "pictures" / "means.png").is_file() and "<svg" in svg
