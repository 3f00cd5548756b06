"""Step 5: evolve C, the small controller, inside the dream of M.

    python scripts/5_train_controller.py --set dream.temperature=1.15

No frame here is real. C's mean at several generations is kept, for step 6 to choose from.
"""

from worldmodels import stages
from worldmodels.commands.staged import STAGED, run_step, settings
from worldmodels.runs import Device, file_digest

USES = ("controller", "dream", "starts")


def main(
    preset: str = "quick", set: tuple[str, ...] = (), seed: int = 0, device: Device = "cpu"
) -> None:
    """Evolve C with the V of step 2, the latents of step 3 and the M of step 4.

    Args:
        preset: where the settings come from: smoke, quick or full.
        set: settings to change, such as dream.temperature=1.15.
        seed: of all steps.
        device: cpu, or cuda for a GPU.
    """
    paths = [STAGED / f"{name}.safetensors" for name in ("vision", "memory", "z")]
    vision = stages.VisionFile.load(paths[0])
    memory = stages.MemoryFile.load(paths[1])
    z = stages.LatentsFile.load(paths[2])
    cfg, out = settings(preset, set, USES, vision.source.env_id), STAGED / "evolved"
    inputs = [cfg.controller, cfg.dream, cfg.starts, *map(file_digest, paths)]
    with stages.open_stage("controller", out, inputs, STAGED, seed=seed, device=device) as ctx:
        evolved = stages.evolve_controller(
            cfg.controller, cfg.dream, cfg.starts, vision, [memory], [z], ctx
        )
        evolved.agent.save_pretrained(out, dtype="float32")
        evolved.candidates.save(STAGED / "candidates.safetensors")
    print(f"C, evolved over {evolved.frames:,} dreamt frames: {out}")


if __name__ == "__main__":
    run_step(main)
