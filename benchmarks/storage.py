"""Which compression suits frames: bytes per frame, and speed both ways on one core.

    python benchmarks/storage.py [--episodes 6] [--markdown FILE]

Frames of a collected set go through filters and codecs in blocks of so many frames. A filter's time
counts: what is written is what a collector would write, and what is read is a whole frame again.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import tyro
import zstandard
from numba import njit
from numpy.typing import NDArray

from worldmodels.experience.collect import CollectConfig, collect
from worldmodels.experience.episode import join_colours, split_colours
from worldmodels.experience.exploration import AR1Config
from worldmodels.experience.store import EpisodeStore
from worldmodels.runs import machine

T = TypeVar("T")
Frames: TypeAlias = NDArray[np.uint8]
Codec: TypeAlias = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
Measured: TypeAlias = tuple[float, float, float]
Filter: TypeAlias = tuple[Callable[[Frames], Frames], Callable[[Frames], Frames]]


@dataclass(frozen=True)
class Args:
    """What to measure."""

    env: str = "worldmodels/CarRacing-v3"
    """environment id"""
    episodes: int = 8
    """episodes to take frames from"""
    max_steps: int = 400
    """longest episode"""
    rounds: int = 5
    """measurements, of which the best counts"""
    markdown: Path | None = None
    """where to write the table"""


@njit(cache=True)
def time_difference(x: Any) -> Any:
    """Subtract the frame before from each frame of (n, bytes)."""
    out = x.copy()
    for t in range(1, x.shape[0]):
        for i in range(x.shape[1]):
            out[t, i] = x[t, i] - x[t - 1, i]
    return out


@njit(cache=True)
def time_sum(x: Any) -> Any:
    """Undo `time_difference`."""
    out = x.copy()
    for t in range(1, x.shape[0]):
        for i in range(x.shape[1]):
            out[t, i] = x[t, i] + out[t - 1, i]
    return out


@njit(cache=True)
def line_difference(x: Any, width: int) -> Any:
    """Subtract the byte one line of pixels above from each byte of (n, bytes)."""
    out = x.copy()
    for t in range(x.shape[0]):
        for i in range(width, x.shape[1]):
            out[t, i] = x[t, i] - x[t, i - width]
    return out


@njit(cache=True)
def line_sum(x: Any, width: int) -> Any:
    """Undo `line_difference`."""
    out = x.copy()
    for t in range(x.shape[0]):
        for i in range(width, x.shape[1]):
            out[t, i] = x[t, i] + out[t, i - width]
    return out


def filters(shape: tuple[int, ...]) -> dict[str, Filter]:
    """Return what may be done to a block of frames (n, S, S, 3) before compression."""
    line = shape[1] * shape[2]

    def flat(x: Frames) -> Frames:
        return x.reshape(len(x), -1)

    def joined(planes: Frames) -> Frames:
        out = np.empty((planes.size // int(np.prod(shape)), *shape), np.uint8)
        join_colours(planes, out)
        return out

    def frames(x: Frames) -> Frames:
        return x.reshape(-1, *shape)

    return {
        "none": (lambda x: x, frames),
        "colour planes": (split_colours, joined),
        "difference in time": (
            lambda x: time_difference(flat(x)),
            lambda x: frames(time_sum(flat(frames(x)))),
        ),
        "difference of lines": (
            lambda x: line_difference(flat(x), line),
            lambda x: frames(line_sum(flat(frames(x)), line)),
        ),
        "planes, difference in time": (
            lambda x: time_difference(split_colours(x).reshape(3 * len(x), -1)),
            lambda x: joined(time_sum(x.reshape(len(x) // int(np.prod(shape)) * 3, -1))),
        ),
    }


def codecs() -> dict[str, Codec]:
    """Return the compressions that are installed."""
    found: dict[str, Codec] = {"raw": (bytes, bytes)}
    if importlib.util.find_spec("lz4"):
        import lz4.block as lz4

        found["LZ4"] = (lz4.compress, lz4.decompress)
        found["LZ4 HC 3"] = (
            lambda raw: bytes(lz4.compress(raw, mode="high_compression", compression=3)),
            lz4.decompress,
        )
    for level in (-5, -1, 1, 3, 6):
        compress = zstandard.ZstdCompressor(level=level).compress
        found[f"zstd {level}"] = (compress, zstandard.ZstdDecompressor().decompress)
    if importlib.util.find_spec("blosc2"):
        import blosc2

        blosc2.set_nthreads(1)
        for name, codec in (("LZ4", blosc2.Codec.LZ4), ("zstd 1", blosc2.Codec.ZSTD)):
            found[f"blosc2 {name}, shuffle"] = (
                lambda raw, codec=codec: blosc2.compress2(  # type: ignore[misc]
                    raw, codec=codec, clevel=1, typesize=3, filters=[blosc2.Filter.SHUFFLE]
                ),
                blosc2.decompress2,
            )
    found["zlib 1"] = (lambda raw: zlib.compress(raw, 1), zlib.decompress)
    return found


def best_time(work: Callable[[T], Any], items: list[T], rounds: int) -> float:
    """Processor seconds for all items, each at its fastest: other programs disturb it little."""
    total = 0.0
    for item in items:
        times = []
        for _ in range(rounds):
            begin = time.thread_time()
            work(item)
            times.append(time.thread_time() - begin)
        total += min(times)
    return total


def measure(blocks: list[Frames], change: Filter, codec: Codec, rounds: int) -> Measured:
    """Return bytes a frame, and microseconds a frame of writing and of reading."""
    compress, decompress = codec
    written = [compress(change[0](block).tobytes()) for block in blocks]

    def read(raw: bytes) -> Frames:
        return change[1](np.frombuffer(decompress(raw), np.uint8))

    for block, raw in zip(blocks, written, strict=True):
        assert np.array_equal(read(raw), block), "not what was written"
    frames = sum(map(len, blocks))
    write_time = best_time(lambda b: compress(change[0](b).tobytes()), blocks, rounds)
    read_time = best_time(read, written, rounds)
    size = sum(map(len, written)) / frames
    return size, 1e6 * write_time / frames, 1e6 * read_time / frames


def rows(store: EpisodeStore, rounds: int) -> Iterator[tuple[str, str, int, Measured]]:
    """Yield filter, codec, block, and what `measure` finds, for combinations of interest."""
    plain = ("none", "colour planes")
    chosen = ("LZ4", "zstd 1")
    for block in (32, 8, 64, 128):
        blocks = [
            frames[first : first + block]
            for frames in (store.read(record.index).obs for record in store.episodes)
            for first in range(0, len(frames), block)
        ]
        for name, change in filters(store.frame_shape).items():
            for codec, functions in codecs().items():
                usual = block == 32 and (name in plain or codec in chosen)
                if usual or (name == "colour planes" and codec == "zstd 1"):
                    yield name, codec, block, measure(blocks, change, functions, rounds)


def main(args: Args) -> None:
    """Measure and print a table in Markdown."""
    lines = [
        "| filter | codec | frames in a block | bytes a frame | ratio | write, us a frame "
        "| read, us a frame |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        cfg = CollectConfig(max_steps=args.max_steps)
        collect(cfg, args.env, AR1Config(), range(args.episodes), Path(folder))
        store = EpisodeStore([folder])
        raw = int(np.prod(store.frame_shape))
        for name, codec, block, (size, write, read) in rows(store, args.rounds):
            lines.append(
                f"| {name} | {codec} | {block} | {size:,.0f} | {raw / size:.1f} "
                f"| {write:.1f} | {read:.1f} |"
            )
            print(lines[-1], flush=True)
    print(machine())
    if args.markdown is not None:
        args.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
