"""The page as a whole: well formed, alone, accessible, and whole also where the run is not."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldmodels.pages import MAX_BYTES, build_report
from worldmodels.presets import PRESETS
from worldmodels.protocols import TEST_SEED_START, UserError
from worldmodels.run_config import changed
from worldmodels.runs import to_jsonable, write_json
from worldmodels.tasks import DEFAULT

from .fixture import make_run
from .parser import Page, standing_alone

SECTIONS = {"videos", "episodes", "dream", "learning", "pictures", "cost", "guide", "setup"}
TRACKS = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", tracks=TRACKS)


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return build_report(run).read_text(encoding="utf-8")


def test_page_is_well_formed_and_has_every_section(html: str) -> None:
    page = Page(html)
    assert page.sections == SECTIONS
    assert page.tags.count("video") == 4
    assert page.tags.count("img") == 2


def test_page_stands_alone(html: str) -> None:
    standing_alone(html)


def test_page_is_small_and_the_only_new_file(run: Path, html: str) -> None:
    assert len(html.encode()) < MAX_BYTES
    assert {path.name for path in run.iterdir() if path.name.startswith("report")} == {
        "report.html"
    }


def test_page_says_what_the_run_measured(run: Path, html: str) -> None:
    result = json.loads((run / "evaluation.json").read_text())
    assert f'<span class="number">{result["mean"]:.0f}</span>' in html
    assert f"{result['ci95'][0]:.0f} to {result['ci95'][1]:.0f}" in html
    assert "318,000" in html  # 3 x (60,000 collected + 46,000 for selection)
    assert "55.3 million" in html  # 3 x 18,432,000 dreamt
    assert "in the dream only" in html
    assert "<td>random walk</td>" in html and "<td>the driver, with noise</td>" in html
    assert "dream return 1139 is above the bound 1000" in html
    for episode in result["episodes"]:
        assert f"seed {episode['seed']}: {episode['return']:.1f}" in html  # a dot's tooltip


def test_page_says_how_well_m_knows_the_ends(html: str) -> None:
    assert "Of 61 recorded ends M foresaw 21.7" in html and "expected 54.2 in all" in html
    assert "93% of the time (AUC" in html
    assert "predicted 42%, observed 50%, 12 steps" in html  # a dot's tooltip
    assert "after 500 steps 95% of the dreams and 81% of the real episodes still run" in html
    assert "last 934 steps on average" in html and "last 812 steps" in html


def test_where_no_episode_ends_by_itself_there_is_no_chart_of_ends(
    run: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if k not in ("ends", "survival")} for row in rows]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    html = build_report(tmp_path).read_text(encoding="utf-8")
    assert "Predicted rewards" in html
    assert "Predicted ends" not in html and "Survival" not in html


def test_every_colour_follows_the_scheme(html: str) -> None:
    used = set(re.findall(r"var\(--([a-z]+)\)", html))
    light, dark = html.split("prefers-color-scheme: dark", 1)
    for name in used:
        assert f"--{name}:" in light and f"--{name}:" in dark, name


def test_same_run_gives_the_same_page(run: Path, html: str) -> None:
    assert build_report(run).read_text(encoding="utf-8") == html


def test_empty_run_names_the_commands_that_fill_it(tmp_path: Path) -> None:
    html = build_report(tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    assert page.sections == SECTIONS
    assert "worldmodels run --preset quick --out" in html
    assert "worldmodels evaluate --agent" in html
    assert "in the dream only" not in html


def test_returns_have_the_digits_that_their_error_allows(tmp_path: Path) -> None:
    episodes = [{"seed": k, "return": value} for k, value in enumerate((0.61, 0.64, 0.7))]
    content = {"episodes": episodes, "mean": 0.65, "ci95": [0.61, 0.69], "std": 0.04}
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    html = build_report(tmp_path).read_text(encoding="utf-8")
    assert '<span class="number">0.65</span>' in html
    assert "0.61 to 0.69" in html and "0.65 ± 0.04" in html


@pytest.mark.parametrize("kept", ["metrics.jsonl", "evaluation.json", "frames.json", "config.json"])
def test_one_file_of_a_run_is_enough(run: Path, tmp_path: Path, kept: str) -> None:
    (tmp_path / kept).write_bytes((run / kept).read_bytes())
    assert Page(build_report(tmp_path).read_text(encoding="utf-8")).sections == SECTIONS


def test_shortest_run_of_another_environment(tmp_path: Path) -> None:
    lines = [
        {"stage": "vision", "iteration": 0, "step": 1, "reconstruction": 9.0, "kl": None},
        {"stage": "memory", "iteration": 0, "step": 1, "nll": "NaN", "reward_loss": 0.0},
        {"stage": "controller", "iteration": 0, "generation": 1, "dream_best": 1.0},
        {"stage": "selection", "iteration": 0, "generation": 1, "real_mean": 2.0, "selected": True},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.json").write_text('{"env_id": "Example/Pixels-v0", "preset": "smoke"}')
    (tmp_path / "evaluation.json").write_text(
        '{"episodes": [{"seed": 7, "return": 0.0}], "ci95": ["NaN", "NaN"]}'
    )
    html = build_report(tmp_path).read_text(encoding="utf-8")
    Page(html)
    assert "worldmodels run --preset smoke --env Example/Pixels-v0" in html


@pytest.mark.parametrize("whole", [True, False])
def test_a_report_of_a_task_without_words_says_nothing_of_car_racing(
    tmp_path: Path, whole: bool
) -> None:
    make_run(tmp_path, tracks=TRACKS, media=False)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"env_id": "Example/Pixels-v0", "test_env_id": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tested = json.loads((tmp_path / "evaluation.json").read_text())
    for episode in tested["episodes"]:
        episode["lap_finished"] = None
    (tmp_path / "evaluation.json").write_text(json.dumps(tested))
    if not whole:
        for name in ("metrics.jsonl", "evaluation.json", "evaluation_random.json", "frames.json"):
            (tmp_path / name).unlink()
    html = build_report(tmp_path).read_text(encoding="utf-8")
    shown = re.sub(r"<(style|script|svg).*?</\1>", " ", html, flags=re.DOTALL)
    said = re.sub(r"<[^>]*>", " ", shown)
    words = r"\b(tracks?|laps?|roads?|cars?|tiles?|driv\w+|drove|solved|900|600)\b"
    assert re.findall(words, said, re.IGNORECASE) == []
    commands = [code for code in re.findall(r"<code>(.*?)</code>", html) if " --" in code]
    assert bool(commands) and all("--env Example/Pixels-v0" in command for command in commands)
    assert ("random agent" in html) == whole


def test_text_of_a_run_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"env_id": "<script>alert(1)</script>", "a": {"b<": 1}}')
    html = build_report(tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "b&lt;" in html


def test_media_without_room_are_linked(run: Path, tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "best.mp4").write_bytes(bytes(MAX_BYTES))
    (media / "worst.mp4").write_bytes((run / "media" / "worst.mp4").read_bytes())
    target = build_report(tmp_path)
    page = Page(target.read_text(encoding="utf-8"))
    assert "media/best.mp4" in page.addresses
    assert page.tags.count("video") == 1
    assert target.stat().st_size < MAX_BYTES


def test_a_video_has_the_size_that_was_noted(run: Path, tmp_path: Path, html: str) -> None:
    assert html.count('width="144" height="48"') == 3
    media = tmp_path / "media"
    media.mkdir()
    (media / "best.mp4").write_bytes((run / "media" / "best.mp4").read_bytes())
    for noted in ({}, {"best": {"size": [0, 48]}}, {"best": {"size": "big"}}):
        (media / "episodes.json").write_text(json.dumps(noted))
        said = build_report(tmp_path).read_text(encoding="utf-8")
        assert "<video" in said and 'width="' not in said.split("<video")[1].split(">")[0]


def test_a_page_of_the_dream_is_linked_where_there_is_one(tmp_path: Path) -> None:
    assert "dream.html" not in build_report(tmp_path).read_text(encoding="utf-8")
    (tmp_path / "dream.html").write_text("")
    html = build_report(tmp_path).read_text(encoding="utf-8")
    assert '<a href="dream.html">Act inside its dream</a>, by keys or touch.' in html


def test_missing_folder_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent is not a run folder"):
        build_report(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", '{"stage": "vision"}\n{"sta\n{}\n', "metrics.jsonl, line 2"),
        ("metrics.jsonl", "[1]\n{}\n", "metrics.jsonl, line 1"),
        ("evaluation.json", '{"episodes": []}', "evaluation.json has no episodes"),
        (
            "evaluation.json",
            '{"episodes": [{"seed": 1}]}',
            "evaluation.json: episodes[0] lacks return",
        ),
        ("evaluation.json", '{"episodes": [{"seed": 1, "return": NaN}]}', "not a finite number"),
        ("frames.json", "[]", "frames.json holds []; it must be a JSON object"),
        ("config.json", "{", "config.json"),
        ("config.json", '{"config": 3}', "config.json: config is 3; it must be a JSON object"),
        ("config.json", '{"machine": "x"}', "config.json: machine is 'x'"),
        ("frames.json", '{"totals": {"test": []}}', "frames.json: totals['test'] is []"),
        ("metrics.jsonl", '{"stage": "vision", "step": {}}\n', "line 1: step is {}; it must be"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(message)):
        build_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


CARTPOLE, PENDULUM = "CartPole-v1", "Pendulum-v1"
CHECKED = [{"setting": "action_repeat", "value": 2}, {"setting": "dream.horizon", "value": 250}]


@pytest.mark.parametrize(
    ("env_id", "returns", "changes", "flags"),
    [
        (CARTPOLE, [9.0, 31.0, 500.0], {}, ""),
        (
            PENDULUM,
            [-1400.0, -900.0, -120.5],
            {"action_repeat": 4, "test.videos": False, "experience.explore_scales": (0.5, 1.0)},
            " --action-repeat 4 --experience.explore-scales 0.5 1.0 --test.no-videos",
        ),
    ],
)
def test_a_report_speaks_of_its_own_task(
    tmp_path: Path, env_id: str, returns: list[float], changes: dict[str, Any], flags: str
) -> None:
    cfg = changed(PRESETS["quick"](env_id=env_id, task=DEFAULT), {"action_repeat": 2, **changes})
    config = {"preset": "quick", "seed": 0, "task": "default", **to_jsonable(cfg)}
    write_json(tmp_path / "config.json", {"config": config | {"test_env_id": env_id}})
    write_json(tmp_path / "check.json", {"env_id": env_id, "choices": CHECKED})
    random = [{"seed": k, "return": value} for k, value in enumerate(returns[:2])]
    write_json(tmp_path / "evaluation_random.json", {"episodes": random})
    folder = shlex.quote(tmp_path.as_posix())
    run = f"<code>worldmodels run --preset quick --env {env_id}{flags} --out {folder}</code>"
    test = f"<code>worldmodels evaluate --agent {folder}/agent --env {env_id} --episodes 100 "
    html = build_report(tmp_path).read_text(encoding="utf-8")
    assert run in html and test in html

    tested = [{"seed": k, "return": value, "length": 50} for k, value in enumerate(returns)]
    write_json(tmp_path / "evaluation.json", {"env": env_id, "episodes": tested})
    html = build_report(tmp_path).read_text(encoding="utf-8")
    shown = html.split('<section id="setup"')[0]
    said = re.sub(r"<(style|script|svg).*?</\1>|<[^>]*>", " ", shown, flags=re.DOTALL)
    words = r"\b(tracks?|laps?|roads?|cars?|tiles?|driv\w+|drove|solved|900|600)\b"
    assert re.findall(words, said.replace("−900", ""), re.IGNORECASE) == []
    assert "An agent and its world model" in said and "Every test episode" in said
    mean = f"{np.mean(returns):,.0f}".replace("-", "−")
    assert f'<span class="number">{mean}</span>' in html
    assert f"random agent: {np.mean(returns[:2]):,.0f}".replace("-", "−") in html


def test_a_limit_of_steps_and_a_seed_are_part_of_the_commands(tmp_path: Path) -> None:
    cfg = PRESETS["smoke"](env_id=CARTPOLE, task=DEFAULT).limited(30)
    config = {"preset": "smoke", "seed": 3, "task": "default", **to_jsonable(cfg)}
    write_json(tmp_path / "config.json", {"config": config | {"test_env_id": CARTPOLE}})
    html = build_report(tmp_path).read_text(encoding="utf-8")
    assert (
        f"worldmodels run --preset smoke --env {CARTPOLE} --seed 3 --experience.explore-s" in html
    )
    assert "--test.max-steps 30 --out" in html
    assert f"--seed {TEST_SEED_START} --max-steps 30 --json" in html
