"""Step 3: turn every frame into V's (mu, logvar), which is all that M will ever see of it.

    python scripts/3_encode.py

Where V was trained on horizontal flips, each episode is encoded a second time, flipped.
"""

from worldmodels import stages
from worldmodels.commands.staged import STAGED, run_step
from worldmodels.experience.store import EpisodeStore
from worldmodels.runs import Device


def main(device: Device = "cpu") -> None:
    """Encode the episodes of step 1 with the V of step 2.

    Args:
        device: cpu, or cuda for a GPU.
    """
    store = EpisodeStore(STAGED / "episodes")
    vision, out = stages.VisionFile.load(STAGED / "vision.safetensors"), STAGED / "z.safetensors"
    inputs = [vision.digest, store.fingerprint]
    with stages.open_stage("encode", out, inputs, STAGED, device=device) as ctx:
        z = stages.encode(vision, store, ctx)
        z.save(out)
    print(f"{z.latents.num_frames:,} frames of {z.latents.num_episodes} episodes: {out}")


if __name__ == "__main__":
    run_step(main)
