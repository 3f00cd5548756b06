"""A researcher's hour with a finished run: its episodes, another V, another M, dreams and a plan.

    python scripts/researchers_hour.py runs/demo --out runs/hour

Curves of the trainings are in OUT/tensorboard. Needs the extras `tensorboard` and `minari`.
"""

import dataclasses
import sys
from pathlib import Path

import tyro

from worldmodels import EpisodeStore, evaluate, export_minari, open_policy, stages
from worldmodels.cli import guarded
from worldmodels.presets import smoke
from worldmodels.runs import RunFolder


def main(
    run: tyro.conf.Positional[Path], out: Path = Path("runs/hour"), max_steps: int = 50
) -> None:
    """Do it all once, with short trainings and real episodes of ``max_steps``."""
    # the rollouts of the run
    store = EpisodeStore(run)
    best = max(episode.reward.sum() for episode in store)
    print(f"{len(store)} episodes of {store.env_id}, the best with a return of {best:.1f}")
    print(store.as_dataset(length=8)[0]["obs"].shape)  # of torch, for networks of your own

    # V on them, and another kind of M on its latents
    cfg = smoke(store.env_id)  # or quick, for results
    ctx = stages.StageContext(run=RunFolder(out, log=("tensorboard",)))
    vision = stages.train_vision(cfg.vision_training, cfg.vision, store, ctx)
    z = stages.encode(vision, store, ctx)
    kind = dataclasses.replace(cfg.memory, kind="transformer")
    memory = stages.train_memory(kind, cfg.memory_training, [z], ctx)

    # C in its dreams; what they look like; acting by planning in them
    parts = (cfg.controller, cfg.dream, cfg.starts, vision, [memory], [z], ctx)
    agent = stages.evolve_controller(*parts).agent
    agent.save_pretrained(out / "agent")
    dream = agent.imagine(steps=20, dreams=16)
    print(f"dreamt return {dream.total_reward.mean():.1f}, {agent.decode(dream.z[0]).shape}")
    for name in ("controller", "cem"):
        policy = open_policy(out / "agent", name)
        result = evaluate(policy, store.env_id, episodes=2, max_steps=max_steps, workers=1)
        print(f"{name}: real return {result.mean:.1f}")

    # episodes for other libraries
    export_minari(store, f"worldmodels/{out.name}-v0")


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(main, description=__doc__)))
