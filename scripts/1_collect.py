"""Step 1: collect episodes of random driving.

    python scripts/1_collect.py                     # the quick preset's first iteration, all cores
    python scripts/1_collect.py --preset smoke      # a handful of short episodes
    python scripts/1_collect.py --set experience.explore_episodes=50

Each step reads what the one before left in runs/staged. All seven are what `worldmodels run` does
in one iteration, with the same numbers.
"""

from worldmodels import executors, stages
from worldmodels.commands.staged import STAGED, run_step, settings

USES = (
    "experience.explore_episodes",
    "experience.explore_steps",
    "experience.explore_scales",
    "experience.explore_rho",
    "experience.explore_bias",
    "experience.patience",
    "experience.group",
    "action_repeat",
    "frame_rows",
    "crop",
)


def main(
    preset: str = "quick",
    env: str = "worldmodels/CarRacing-v3",
    set: tuple[str, ...] = (),
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Drive at random, and record frames, actions and rewards.

    Args:
        preset: where the settings come from: smoke, quick or full.
        env: any Gymnasium environment with pixels.
        set: settings to change, such as experience.explore_episodes=50.
        seed: of all steps.
        workers: processes; None takes one per core.
    """
    cfg, out = settings(preset, set, USES, env, typed=True), STAGED / "episodes"
    drives = stages.exploration(cfg.experience)
    inputs = [env, drives, cfg.action_repeat, cfg.frame_spec]
    with (
        executors.make(None, workers) as executor,
        stages.open_stage("collect", out, inputs, STAGED, seed=seed, executor=executor) as ctx,
    ):
        found = stages.collect(
            drives,
            env,
            out,
            ctx,
            group=cfg.experience.group,
            action_repeat=cfg.action_repeat,
            frame_spec=cfg.frame_spec,
        )
    print(f"{found['frames']:,} frames, mean return {found['mean_return']:.1f}: {out}")


if __name__ == "__main__":
    run_step(main)
