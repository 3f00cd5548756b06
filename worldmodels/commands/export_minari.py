"""`worldmodels export-minari`: recorded episodes for other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from worldmodels.commands.parsing import Command
from worldmodels.experience.export import export_minari
from worldmodels.experience.store import EpisodeStore
from worldmodels.stages.files import episode_folders


@dataclass(frozen=True)
class ExportMinari(Command):
    """Write collected episodes into a new local Minari dataset, which other libraries open.

    The frames are those that V sees, without loss. Minari is an extra: pip install
    'worldmodels[minari]'. It keeps its datasets where MINARI_DATASETS_PATH says, or in
    ~/.minari/datasets.
    """

    data: tuple[Path, ...]
    """folders of episodes, from `worldmodels collect`"""
    dataset: str
    """name of the new dataset, in Minari's form: car-racing/random-v0"""
    author: str | None = None
    """whom the dataset names as its author"""

    def execute(self) -> None:
        """Write the dataset and tell what it holds."""
        store = EpisodeStore(episode_folders(self.data))
        export_minari(store, self.dataset, self.author)
        print(
            f"{store.num_steps:,} steps of {len(store):,} episodes: Minari dataset {self.dataset}"
        )
