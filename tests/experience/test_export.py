from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experience import fakes
from worldmodels import cli
from worldmodels.experience.collect import CollectConfig, collect
from worldmodels.experience.exploration import AR1Config
from worldmodels.experience.export import export_minari
from worldmodels.experience.store import EpisodeStore
from worldmodels.protocols import UserError


def make(folder: Path, env_id: str) -> EpisodeStore:
    collect(CollectConfig(max_steps=7), env_id, AR1Config(), range(10), folder)
    return EpisodeStore([folder])


def export(folder: Path) -> int:
    return cli.main(["export-minari", "--data", str(folder), "--dataset", "fakes/test-v0"])


def test_minari_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    make(tmp_path, fakes.BOX)
    assert export(tmp_path) == 2
    assert "pip install 'worldmodels-control[minari]'" in capsys.readouterr().err


@pytest.mark.parametrize("env_id", [fakes.BOX, fakes.DISCRETE])
def test_minari_gives_back_what_was_stored(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    env_id: str,
) -> None:
    minari: Any = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    store = make(tmp_path / "store", env_id)
    assert export(tmp_path / "store") == 0
    assert f"{store.num_steps} steps of 10 episodes" in capsys.readouterr().out
    dataset = minari.load_dataset("fakes/test-v0")
    assert dataset.total_episodes == len(store)
    assert dataset.total_steps == store.num_steps
    for index, found in enumerate(dataset.iterate_episodes()):
        episode = store.read(index)
        assert np.array_equal(found.observations, episode.obs)
        assert np.array_equal(found.actions, episode.action)
        assert np.array_equal(np.float32(found.rewards), episode.reward)
        assert bool(found.terminations[-1]) == episode.terminated
        assert not found.terminations[:-1].any()
    with pytest.raises(UserError, match="Minari refuses the dataset 'fakes/test-v0'"):
        export_minari(store, "fakes/test-v0")
