"""A whole run that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.worker import tiny
from worldmodels.pipeline import run_pipeline


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("unbroken")
    run_pipeline(tiny(), out, seed=1, workers=1, preset="tiny")
    return out
