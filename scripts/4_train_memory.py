"""Step 4: train M, the recurrent network that predicts the next z, the reward and the end.

    python scripts/4_train_memory.py --set memory.ensemble=3

From here on the environment itself is not needed any more, until the result is measured.
"""

from worldmodels import stages
from worldmodels.commands.staged import STAGED, run_step, settings
from worldmodels.runs import Device, file_digest

USES = ("memory", "memory_training")


def main(
    preset: str = "quick", set: tuple[str, ...] = (), seed: int = 0, device: Device = "cpu"
) -> None:
    """Train M on the latents of step 3.

    Args:
        preset: where the settings come from: smoke, quick or full.
        set: settings to change, such as memory.ensemble=3.
        seed: of all steps.
        device: cpu, or cuda for a GPU.
    """
    z, out = stages.LatentsFile.load(STAGED / "z.safetensors"), STAGED / "memory.safetensors"
    cfg = settings(preset, set, USES, z.source.env_id)
    inputs = [cfg.memory, cfg.memory_training, file_digest(STAGED / "z.safetensors")]
    with stages.open_stage("memory", out, inputs, STAGED, seed=seed, device=device) as ctx:
        memory = stages.train_memory(cfg.memory, cfg.memory_training, [z], ctx)
        memory.save(out)
    print(f"M, trained on {z.latents.num_frames:,} frames: {out}")


if __name__ == "__main__":
    run_step(main)
