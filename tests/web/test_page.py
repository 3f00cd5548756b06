"""The page's file: what is in it, and agents that cannot have one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pages.fixture import make_run
from worldmodels import cli
from worldmodels.agent import Agent
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.interface import MemoryState
from worldmodels.pages import build_report
from worldmodels.protocols import UserError
from worldmodels.tasks import DEFAULT
from worldmodels.tasks.car_racing import CAR_RACING
from worldmodels.tasks.take_cover import TAKE_COVER
from worldmodels.vision.vae import ConvVAE, VAEConfig
from worldmodels.web import page
from worldmodels.web.controls import bars, controls
from worldmodels.web.weights import Blob, chosen_starts, decoder

PEDALS = ActionSpec("box", 3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_one_small_file_that_asks_for_nothing(car_racing: Path) -> None:
    text = car_racing.read_text(encoding="utf-8")
    assert len(text.encode()) < 5_000_000
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1] and "unsafe-inline" not in policy[1]
    code = re.sub(r'<script type="(text/plain|application/json)".*?</script>', "", text)
    assert not re.search(r"https?://|fetch\(|XMLHttpRequest|localStorage|document\.cookie", code)
    assert "The driver is an ensemble of 3: here its first member acts" in text


def test_the_same_agent_has_the_same_page(choices: Path, discrete: Path, tmp_path: Path) -> None:
    assert page.export(discrete, tmp_path / "b.html").read_bytes() == choices.read_bytes()


def test_names_are_text_and_paths_stay_at_home(choices: Path, discrete: Path) -> None:
    text = choices.read_text(encoding="utf-8")
    assert "<img" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert str(discrete.parent) not in text


def test_the_decoder_s_first_two_layers_are_one(discrete: Path) -> None:
    agent, blob = Agent.from_pretrained(discrete), Blob()
    first = decoder(agent, blob)["layers"][0]
    assert first["w"]["shape"] == [8, 5 * 5 * 12]
    z = torch.randn(4, 8)
    expected = agent.vision.check_decoder()[0](z).permute(0, 2, 3, 1).flatten(1)
    data = np.frombuffer(b"".join(blob._parts), np.uint8)

    def read(place: dict[str, object]) -> torch.Tensor:
        kind, shape, at = "<f2" if place["half"] else "<f4", place["shape"], place["at"]
        assert isinstance(shape, list) and isinstance(at, int)
        return torch.from_numpy(
            np.frombuffer(data, kind, int(np.prod(shape)), at).reshape(shape).astype(np.float32)
        )

    found = z @ read(first["w"]) + read(first["b"])
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)


@torch.inference_mode()
def test_it_opens_with_a_dream_that_goes_on() -> None:
    """All steps of TakeCover pay the same, and two times in three its first start ends at once."""
    agent = Agent.from_pretrained("take-cover")
    assert agent.starts is not None
    index = chosen_starts(len(agent.starts))
    parts = agent.starts.z[index], agent.starts.h[0, index], agent.starts.c[0, index]
    z, h, c = map(torch.from_numpy, parts)
    action = agent.act(z, h)
    out, _ = agent.memories[0].step(z, action, MemoryState(h, c))
    ends = torch.sigmoid(out.terminated_logit)
    assert ends[0] > 0.5
    assert ends[page._first(agent)] < 0.01


def test_keys_are_the_task_s_or_numbered() -> None:
    keys, rest = controls(PEDALS, CAR_RACING)
    assert {k["key"]: k["action"] for k in keys}["ArrowDown"] == [0, 0, 1]
    assert rest == [0, 0, 0]
    assert [bar["label"] for bar in bars(PEDALS, keys, CAR_RACING)] == [
        "left / right",
        "gas",
        "brake",
    ]
    keys, rest = controls(ActionSpec("discrete", 3), TAKE_COVER)
    assert {k["label"]: k["action"] for k in keys} == {"left": [0, 0, 1], "right": [0, 1, 0]}
    assert rest == [1, 0, 0]
    keys, rest = controls(ActionSpec("discrete", 5), CAR_RACING)  # its keys are of pedals
    assert [k["key"] for k in keys] == list("12345") and rest is None
    keys, rest = controls(ActionSpec("box", 2, (1.0, -2.0), (3.0, 2.0)), DEFAULT)
    assert rest == [1, 0]
    assert {k["key"]: k["action"] for k in keys} == {
        "ArrowRight": [2, 0],
        "ArrowDown": [0, -2],
        "ArrowUp": [0, 2],
    }


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target / "copy"))


def refused(agent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    out = tmp_path / "page.html"
    assert cli.main(["export-web", str(agent), "--out", str(out)]) == 2
    assert not out.exists()
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_damaged_and_foreign_weights_are_refused(
    discrete: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = copied(discrete, tmp_path)
    file = agent / "memory.safetensors"
    tensors = load_file(file)
    tensors["0.mixture.weight"][0, 0] = float("nan")
    save_file(tensors, file)
    assert "memory.safetensors" in refused(agent, tmp_path, capsys)
    shutil.copy(discrete.parents[0] / discrete.name / "vision.safetensors", file)
    assert "memory.safetensors" in refused(agent, tmp_path, capsys)
    shutil.rmtree(agent)
    agent = copied(discrete, tmp_path)
    config = json.loads((agent / "config.json").read_text())
    config["vision"]["z_dim"] = 9
    (agent / "config.json").write_text(json.dumps(config))
    refused(agent, tmp_path, capsys)


def test_numbers_that_are_not_finite_are_refused(discrete: Path, tmp_path: Path) -> None:
    agent = Agent.from_pretrained(discrete)
    agent.memories[0].mixture.weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite in float16"):
        page._write(agent, discrete, tmp_path / "page.html", None)
    with pytest.raises(UserError, match="not finite in float16"):
        Blob().add(np.array([1e6]))
    assert not (tmp_path / "page.html").exists()


def test_agents_that_cannot_dream_are_refused(
    discrete: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = Agent.from_pretrained(discrete)
    agent.without_dreams().save_pretrained(tmp_path / "blind")
    assert "stored without its decoder" in refused(tmp_path / "blind", tmp_path, capsys)
    agent.starts = None
    agent.save_pretrained(tmp_path / "late")
    assert "no recorded starts" in refused(tmp_path / "late", tmp_path, capsys)
    assert page.export_run(tmp_path / "late") is None
    assert "note: no dream player" in capsys.readouterr().out
    assert "no agent 'nobody'" in refused(Path("nobody"), tmp_path, capsys)


def test_a_file_s_environment_imports_no_module(
    discrete: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    agent = Agent.from_pretrained(discrete)
    agent.env_id = "trap:Trap-v0"
    agent.save_pretrained(tmp_path / "agent")
    page.export(tmp_path / "agent", tmp_path / "page.html")
    assert "files decide about no imports" in capsys.readouterr().out


def test_a_report_links_its_run_s_page(discrete: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tracks=3, media=False)
    (run / "metrics.jsonl").unlink()  # their charts take seconds
    assert "dream.html" not in build_report(run).read_text()
    shutil.copytree(discrete, run / "agent")
    assert page.export_run(run) == run / "dream.html"
    assert 'href="dream.html"' in build_report(run).read_text()
    assert 'href="report.html"' in (run / "dream.html").read_text()


def test_a_wide_v_has_a_page(discrete: Path, tmp_path: Path) -> None:
    agent = Agent.from_pretrained(discrete)
    agent.vision = ConvVAE(VAEConfig(z_dim=8, width=5)).eval()
    assert page._write(agent, discrete, tmp_path / "page.html", None).is_file()
