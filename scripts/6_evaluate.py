"""Step 6: choose between the snapshots of C by real driving, then test what was chosen.

    python scripts/6_evaluate.py --set test.episodes=100

The tracks that choose are not those of the training, and the tracks of the test are neither. Where
the preset has a residual, a bounded change of C is learnt in the dream and kept if it helps.
"""

import shutil
from functools import partial

from worldmodels import executors, stages
from worldmodels.agent import Agent
from worldmodels.commands.staged import STAGED, run_step, settings

USES = ("selection", "residual", "test", "test_env_id", "dream.horizon")


def main(
    preset: str = "quick",
    set: tuple[str, ...] = (),
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Select a snapshot of step 5, and drive the test tracks with it.

    Args:
        preset: where the settings come from: smoke, quick or full.
        set: settings to change, such as test.episodes=100.
        seed: of all steps.
        workers: processes; None takes one per core.
    """
    out, selected = STAGED / "agent", STAGED / "selected"
    env_id = Agent.from_pretrained(STAGED / "evolved").env_id
    cfg = settings(preset, set, USES, env_id)
    candidates = stages.Candidates.load(STAGED / "candidates.safetensors")
    shutil.copytree(STAGED / "evolved", selected, dirs_exist_ok=True)
    with executors.make(None, workers) as executor:
        stage = partial(stages.open_stage, run=STAGED, seed=seed, executor=executor)
        with stage("select", selected, cfg.selection) as ctx:
            best = stages.select(cfg.selection, cfg.dream, selected, candidates, ctx)
        with stage("final", out, cfg.selection) as ctx:
            finalist = stages.Finalist(0, selected, best["real_mean"])
            stages.choose(cfg.selection, [finalist], out, ctx)
        if cfg.residual.enabled:
            with stage("residual", out, cfg.residual) as ctx:
                stages.learn_residual(cfg.residual.training, cfg.selection, out, ctx)
        with stage("test", out, cfg.test) as ctx:
            result = stages.test(cfg.test, env_id, cfg.test_env, out, STAGED, ctx)
    print(f"the agent scores {result.mean:.1f} over {len(result.episodes)} episodes: {out}")


if __name__ == "__main__":
    run_step(main)
