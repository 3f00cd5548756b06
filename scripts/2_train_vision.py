"""Step 2: train V, the variational auto-encoder that squeezes a frame into a few numbers, z.

    python scripts/2_train_vision.py --set vision.z_dim=16

It sees nothing but frames: neither actions nor rewards.
"""

from worldmodels import stages
from worldmodels.commands.staged import STAGED, run_step, settings
from worldmodels.experience.store import EpisodeStore
from worldmodels.runs import Device

USES = ("vision", "vision_training", "horizontal_flip")


def main(
    preset: str = "quick", set: tuple[str, ...] = (), seed: int = 0, device: Device = "cpu"
) -> None:
    """Train V on the frames of step 1.

    Args:
        preset: where the settings come from: smoke, quick or full.
        set: settings to change, such as vision.z_dim=16.
        seed: of all steps.
        device: cpu, or cuda for a GPU.
    """
    store = EpisodeStore(STAGED / "episodes")
    cfg, out = settings(preset, set, USES, store.env_id), STAGED / "vision.safetensors"
    inputs = [cfg.vision, cfg.vision_training, cfg.horizontal_flip, store.fingerprint]
    with stages.open_stage("vision", out, inputs, STAGED, seed=seed, device=device) as ctx:
        vision = stages.train_vision(
            cfg.vision_training, cfg.vision, store, ctx, horizontal_flip=cfg.horizontal_flip
        )
        vision.save(out)
    print(f"V, trained on the frames of {len(store)} episodes: {out}")


if __name__ == "__main__":
    run_step(main)
