"""A run folder with made-up but plausible numbers, as the pipeline would leave it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

ITERATIONS = 3
GENERATIONS = 60
EVERY = 10
TEST_SEED = 1_000_000
STAGES = ("collect", "vision", "encode", "memory", "controller")


def make_run(folder: Path, tracks: int = 100, media: bool = True, size: int = 48) -> Path:
    """Write the whole run folder; `size` is the height of its videos in pixels."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.json", _config())
    lines = [line for iteration in range(ITERATIONS) for line in _iteration(iteration, rng)]
    lines.append({"stage": "stage", "name": "evaluate", "iteration": None, "seconds": 96.0})
    text = "".join(json.dumps({"time": 1.7e9 + i, **line}) + "\n" for i, line in enumerate(lines))
    (folder / "metrics.jsonl").write_text(text)
    _write(folder / "frames.json", _ledger(tracks))
    good = np.clip(rng.normal(640, 170, tracks), 90, 915)
    _write(folder / "evaluation.json", _evaluation(good, laps=True))
    _write(folder / "evaluation_random.json", _evaluation(rng.normal(-32, 9, tracks)))
    if media:
        make_media(folder / "media", good, size)
    return folder


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


def _config() -> dict[str, Any]:
    return {
        "schema": 1,
        "preset": "quick",
        "seed": 3,
        "env_id": "worldmodels/CarRacing-v3",
        "test_env_id": "CarRacing-v3",
        "iterations": ITERATIONS,
        "collection": {
            "episodes": 200,
            "max_steps": 1000,
            "behaviour": {"kind": "ar1", "gas": 0.4},
        },
        "vision": {"z_dim": 32, "batch": 128, "steps": 4000, "learning_rate": 1e-3},
        "memory": {
            "hidden_size": 256,
            "mixtures": 5,
            "steps": 3000,
            "ensemble": 3,
            "reward": "event",
        },
        "dream": {"horizon": 300, "temperature": 1.15, "episodes": 16, "dtype": "bfloat16"},
        "controller": {"inputs": "zh", "population": 64, "sigma": 0.1, "generations": GENERATIONS},
        "selection": {"episodes": 8, "seed": 500_000},
        "versions": {
            "worldmodels": "0.1.0",
            "python": "3.11.7",
            "torch": "2.13.0",
            "gymnasium": "1.4.0",
            "box2d": "2.3.10",
            "numpy": "2.3.1",
            "cma": "4.2.0",
        },
        "machine": {"cpu": "Example CPU @ 2.50GHz", "cores": 2, "memory_gib": 15.6, "threads": 2},
    }


def _iteration(k: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    means = (-18.0, 240.0, 470.0)
    lines: list[dict[str, Any]] = [
        {
            "stage": "collection",
            "frames": 60_000,
            "episodes": 64,
            "mean_return": means[k],
            "max_return": means[k] + 190,
            "seconds": 14.0 + k,
            "frames_per_second": 4300.0,
            "behaviour": ["AR1Config", "AR1Config"] if k == 0 else ["AgentNoiseConfig"],
        }
    ]
    for step in range(10, 1500 if k else 3000, 10):
        error = (18 if k else 240) * np.exp(-step / 400) + 21 - 2 * k + rng.normal(0, 0.7)
        line = {
            "stage": "vision",
            "step": step,
            "images": step * 128,
            "loss": error + 18,
            "reconstruction": error,
            "kl": 16 + 4 * (1 - np.exp(-step / 500)),
            "images_per_second": 900.0,
        }
        if step % 250 == 0:
            line |= {"val_loss": error + 19, "val_reconstruction": error + 1.4}
            explained = 1 - error / 400
            line |= {"val_explained": explained, "val_explained_moving": explained - 0.2}
        lines.append(line)
    for step in range(10, 1200, 10):
        nll = 28 * np.exp(-step / (90 + 40 * (k == 0))) + 19 - 2.5 * k + rng.normal(0, 0.5)
        line = {
            "stage": "memory",
            "step": step,
            "loss": nll + 0.2,
            "nll": nll,
            "reward_loss": 0.11 + 0.25 * np.exp(-step / 200) + rng.normal(0, 0.004),
            "termination_loss": 0.004,
            "steps_per_second": 21000.0,
        }
        if step % 100 == 0:
            line |= {"val_nll": nll + 1.1, "val_reward_loss": 0.125 + 0.25 * np.exp(-step / 200)}
        lines.append(line)
    lines.append(
        {
            "stage": "memory_calibration",
            "horizon": [1, 10, 50],
            "error": [0.21, 0.55, 0.93 - 0.05 * k],
            "sigma": [0.22, 0.49, 0.74],
            "event_reliability": {
                "predicted": [0.03, 0.12, 0.31, 0.52, 0.71, 0.9],
                "observed": [0.02, 0.14, 0.35, 0.5, 0.64, 0.81],
                "count": [41000, 6100, 2300, 1500, 900, 310],
            },
            "ends": {
                "predicted": [0.00004, 0.0002, 0.0021, 0.018, 0.14, 0.42],
                "observed": [0.0, 0.0003, 0.0018, 0.021, 0.11, 0.5],
                "count": [38000, 9100, 3300, 1500, 90, 12],
                "ends": 61,
                "expected": 54.2,
                "recognised": 21.7,
                "auc": 0.93,
            },
        }
    )
    for generation in range(1, GENERATIONS + 1):
        lines += _generation(k, generation, rng)
    for name, seconds in zip(STAGES, (15.0, 140.0 - 40 * k, 12.0, 150.0, 170.0), strict=True):
        lines.append({"stage": "stage", "name": name, "seconds": seconds})
    return [{**line, "iteration": k} for line in lines]


def _generation(k: int, generation: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    grown = 1 - np.exp(-generation / 22)
    dream = (620 if k == 0 else 480 + 90 * k) * grown + (
        560 * (generation / 60) ** 2 if k == 0 else 0
    )
    lines: list[dict[str, Any]] = [
        {
            "stage": "controller",
            "generation": generation,
            "dream_best": dream + 70 + rng.normal(0, 9),
            "dream_mean": dream - 40,
            "dream_std": 60.0,
            "dream_of_mean": dream + rng.normal(0, 12),
            "sigma": 0.1 * np.exp(-generation / 90),
            "seconds": 2.6,
        }
    ]
    if generation % EVERY == 0:
        fallen = 0.9 * max(0, generation - 30) / 30 if k == 0 else 0.0
        real = (210 + 215 * k) * grown * (1 - fallen) + rng.normal(0, 14)
        lines.append(
            {
                "stage": "selection",
                "generation": generation,
                "dream_return": dream,
                "real_mean": real,
                "real_std": 110.0,
                "real_returns": list(rng.normal(real, 110, 8)),
                "episodes": 8,
                "real_length": 812.5,
                "whole_dream_return": 1.2 * real,
                "whole_dream_length": 934.0,
                "survival": {
                    "step": [0, 250, 500, 750, 1000],
                    "dream": [1.0, 0.97, 0.95, 0.9, 0.88],
                    "real": [1.0, 0.92, 0.81, 0.7, 0.55],
                },
                "alarm": f"dream return {dream:.0f} is above the bound 1000"
                if dream > 1000
                else None,
                "selected": (k, generation) in {(0, 30), (1, 60), (2, 50)},
            }
        )
    return lines


def _ledger(tracks: int) -> dict[str, Any]:
    entries = []
    for k in range(ITERATIONS):
        entries.append({"key": f"collect-{k}", "kind": "collection", "frames": 60_000})
        entries.append({"key": f"selection-{k}", "kind": "selection", "frames": 46_000})
        entries.append({"key": f"dream-{k}", "kind": "dream", "frames": 18_432_000})
    entries.append({"key": "test", "kind": "test", "frames": tracks * 980})
    totals: dict[str, int] = {}
    for entry in entries:
        totals[str(entry["kind"])] = totals.get(str(entry["kind"]), 0) + int(str(entry["frames"]))
    return {"entries": entries, "totals": totals}


def _evaluation(returns: NDArray[np.float64], laps: bool = False) -> dict[str, Any]:
    error = 1.96 * returns.std() / len(returns) ** 0.5
    episodes = [
        {
            "seed": TEST_SEED + i,
            "return": float(value),
            "length": 1000,
            "lap_finished": bool(laps and value > 850),
        }
        for i, value in enumerate(returns)
    ]
    return {
        "agent": "agent",
        "env": "CarRacing-v3",
        "versions": {},
        "episodes": episodes,
        "mean": returns.mean(),
        "std": returns.std(),
        "median": float(np.median(returns)),
        "iqm": float(np.sort(returns)[len(returns) // 4 : -(len(returns) // 4) or None].mean()),
        "p10": float(np.percentile(returns, 10)),
        "ci95": [returns.mean() - error, returns.mean() + error],
        "fraction_solved": float((returns >= 900).mean()),
    }


def make_media(folder: Path, returns: NDArray[np.float64], size: int) -> None:
    """Write videos of a painted road, three panels each, and grids of pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, bend in (("best", 0.3), ("median", 0.8), ("worst", 1.6)):
        frames = [_panels(t, bend, size) for t in range(24)]
        _video(folder / f"{name}.mp4", frames)
    _video(folder / "dream.mp4", [_road(t, 1.0, size, 1.0) for t in range(24)])
    grid = [
        np.concatenate([_road(9 * i, 1.0, size, blur) for i in range(8)], 1) for blur in (0.0, 1.0)
    ]
    imsave(folder / "reconstructions.png", np.concatenate(grid))
    imsave(folder / "dream.png", np.concatenate(grid[::-1]))
    order = np.argsort(returns)
    picks = {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}
    _write(
        folder / "episodes.json",
        {
            name: {
                "seed": TEST_SEED + int(i),
                "return": float(returns[i]),
                "length": 1000,
                "size": [3 * size, size],
            }
            for name, i in picks.items()
        },
    )


def _road(t: int, bend: float, size: int, blur: float) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:size, 0:size] / size
    centre = 0.5 + 0.22 * np.sin(3 * (1 - y) * bend + 0.13 * t) * (1 - y)
    edge = np.clip((np.abs(x - centre) - 0.11) / (0.01 + 0.05 * blur), 0, 1)[..., None]
    green = 0.75 + 0.06 * (((x * 6 + t * 0.2).astype(int) + (y * 6).astype(int)) % 2)[..., None]
    image = edge * np.array([0.4, 1, 0.4]) * green + (1 - edge) * 0.41
    image[int(0.72 * size) : int(0.82 * size), int(0.48 * size) : int(0.53 * size)] = (
        0.8,
        0.1,
        0.1,
    )
    return np.asarray(np.clip(image, 0, 1) * 255, dtype=np.uint8)


def _panels(t: int, bend: float, size: int) -> NDArray[np.uint8]:
    return np.concatenate([_road(t, bend, size, blur) for blur in (0.0, 0.6, 1.2)], axis=1)


def _video(path: Path, frames: list[NDArray[np.uint8]]) -> None:
    height, width, _ = frames[0].shape
    writer = imageio_ffmpeg.write_frames(path, (width, height), fps=12, macro_block_size=2)
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
