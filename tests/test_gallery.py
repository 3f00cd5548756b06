"""The gallery: small animations from an agent's weights, and a dream that is exploited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.figures import gallery
from tests.test_play import H, Z, small_agent
from worldmodels.agent import Agent
from worldmodels.memory.interface import MemoryState
from worldmodels.protocols import UserError

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_every_piece_is_an_animation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DECISIONS": 6, "BEGIN": 4, "EXPLOITED": 3, "ITERATIONS": 2}.items():
        monkeypatch.setattr(gallery, name, value)
    monkeypatch.setattr(gallery, "SEED", 3)
    agent, frames = small_agent(tmp_path), {}
    for name, piece in gallery.PIECES.items():
        gallery.animate(str(agent), piece, tmp_path / f"{name}.webp")
        opened: Any = Image.open(tmp_path / f"{name}.webp")
        frames[name] = opened.n_frames
    assert frames["planning"] == 2 and frames["exploited"] == 4
    assert frames["dreams"] == 6 and frames["temperatures"] > 1


def test_the_search_finds_what_pays_in_the_dream(tmp_path: Path) -> None:
    agent = Agent.from_pretrained(small_agent(tmp_path))
    z, state = torch.zeros(1, Z), MemoryState(torch.zeros(1, H), torch.zeros(1, H))
    found = gallery.exploit(agent, z, state, 4)
    rng = np.random.default_rng(1)
    others = rng.uniform([-1, 0], [1, 2], (500, 4, 2)).astype(np.float32)
    best = gallery.dream_of(agent, z, state, found[None])[1].sum()
    assert best >= gallery.dream_of(agent, z, state, others)[1].sum(1).max() - 1e-4
    assert (found >= [-1, 0]).all() and (found <= [1, 2]).all()


def test_an_agent_without_dreams_is_refused(tmp_path: Path) -> None:
    agent = Agent.from_pretrained(small_agent(tmp_path)).without_dreams()
    blind = agent.save_pretrained(tmp_path / "blind")
    with pytest.raises(UserError, match="no dreams to show"):
        gallery.animate(str(blind), gallery.dreams, tmp_path / "dreams.webp")


def test_the_page_shows_all_of_it_and_it_is_small() -> None:
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    files = sorted((DOCS / "images" / "gallery").glob("*.webp"))
    pieces = sorted(f"car-racing-{piece}.webp" for piece in gallery.PIECES)
    assert [path.name for path in files] == pieces
    assert all(f"](images/gallery/{path.name})" in page for path in files)
    sizes = [path.stat().st_size for path in files]
    assert max(sizes) < 1_000_000 and sum(sizes) < 4_000_000
