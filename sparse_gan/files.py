"""MNIST's and CIFAR's own files, from a folder the user names; nothing is downloaded.

Files are checked before they are unpacked: an IDX file's header says how long it must be, and CIFAR
is read from its binary version. Its "Python version" is a pickle, which can run any code, and is
refused.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sparse_gan.data import Labelled
from sparse_gan.preprocessing import unit_rows
from worldmodels.protocols import UserError

_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_MOST_BYTES = 2**31
CIFAR_RECORD = 1 + 3 * 32 * 32
"""Bytes of a label and a picture in CIFAR-10's binary files."""


def read_idx(path: Path) -> NDArray[Any]:
    """Read an IDX file, gzipped if its name ends in .gz.

    Raises:
        UserError: the file is missing, is no IDX file, or is shorter or longer than it says.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            return _read_idx(file, path)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{path} is not a whole gzip file ({error})") from error


def _read_idx(file: BinaryIO | gzip.GzipFile, path: Path) -> NDArray[Any]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or head[3] == 0:
        raise UserError(f"{path} is not an IDX file: it begins with {head.hex(' ') or 'nothing'}")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise UserError(f"{path} ends within its header")
    shape = struct.unpack(f">{head[3]}I", sizes)
    dtype = np.dtype(_TYPES[head[2]])
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > _MOST_BYTES:
        raise UserError(f"{path} says it holds {wanted:,} bytes; {_MOST_BYTES:,} are allowed")
    data = file.read(wanted + 1)
    if len(data) != wanted:
        more = "more" if len(data) > wanted else f"{len(data):,}"
        raise UserError(f"{path} should hold {wanted:,} bytes after its header and holds {more}")
    return np.frombuffer(data, dtype).reshape(shape)


def mnist(folder: Path | str) -> Labelled:
    """MNIST, or data in its form, from the four IDX files in a folder; rows of length 1.

    Raises:
        UserError: a file is missing or damaged, or pictures and labels do not match.
    """
    parts = {}
    for part, stem in (("train", "train"), ("test", "t10k")):
        pictures = read_idx(_one_of(Path(folder), f"{stem}-images", "idx3-ubyte"))
        labels = read_idx(_one_of(Path(folder), f"{stem}-labels", "idx1-ubyte"))
        if pictures.ndim != 3 or labels.shape != pictures.shape[:1]:
            raise UserError(
                f"{folder}: {stem} has pictures {pictures.shape} and labels {labels.shape}; "
                "expected (N, height, width) and (N,)"
            )
        parts[part] = pictures, labels.astype(np.int64)
    train, test = parts["train"], parts["test"]
    shape = (train[0].shape[1], train[0].shape[2])
    return Labelled(unit_rows(train[0]), train[1], unit_rows(test[0]), test[1], shape)


def _one_of(folder: Path, stem: str, kind: str) -> Path:
    names = [f"{stem}{dash}{kind}{end}" for dash in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} has none of {', '.join(names)}")


def cifar10(folder: Path | str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (N, 32, 32, 3) and classes (N,) of the training files of CIFAR-10 in a folder.

    Raises:
        UserError: no binary file (the Python version is refused), or one of a wrong length.
    """
    folder = Path(folder)
    binary = [folder / f"data_batch_{number}.bin" for number in range(1, 6)]
    found = [path for path in binary if path.is_file()]
    if not found:
        pickled = (folder / "data_batch_1").is_file()
        hint = "; its Python version is a pickle, which could run any code" if pickled else ""
        raise UserError(f"{folder} has no {binary[0].name} of CIFAR-10's binary version{hint}")
    batches = [_binary_batch(path) for path in found]
    flat = np.concatenate([pictures for pictures, _ in batches])
    pictures = np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return pictures, np.concatenate([labels for _, labels in batches])


def _binary_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if not len(data) or len(data) % CIFAR_RECORD:
        raise UserError(f"{path} has {len(data):,} bytes; expected a multiple of {CIFAR_RECORD}")
    records = data.reshape(-1, CIFAR_RECORD)
    return records[:, 1:], records[:, 0].astype(np.int64)
