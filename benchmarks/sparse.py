"""Sparse codes beside their peers: LISTA against ISTA and FISTA, ours against scikit-learn's.

    python benchmarks/sparse.py [--what lista speed drsae memory] [--seeds 3] [--out DIR]

lista  NMSE at 16 iterations on Gaussian codes (M 250, N 500, a tenth not 0), the lambda of ISTA and
       of FISTA chosen for each on other samples. A seed that is done is read from --out.
speed  codes of natural 12x12 patches, batched FISTA beside SparseCoder, at equal objective.
drsae  test error on digits beside a linear classifier on PSD codes, on LISTA's codes and on pixels,
       and beside nearest neighbours and a support vector machine on pixels.
memory peak of the process that codes a million patches, beside the size of patches and codes.
"""

from __future__ import annotations

import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from sparse_gan import data, preprocessing
from sparse_gan.coding.dictionary import DictionaryConfig, SparseCoding, learn_dictionary
from sparse_gan.coding.drsae import DrSAE, DrSAEConfig, DrSAETrainConfig, train_drsae
from sparse_gan.coding.ista import Lasso, SolverConfig, minimise
from sparse_gan.coding.lista import LISTA, Kind, LISTAConfig, LISTATrainConfig, train_lista
from sparse_gan.coding.psd import PSDConfig, train_psd
from sparse_gan.coding.training import generator_of
from sparse_gan.metrics import nmse_db
from worldmodels.runs import machine, read_json, write_json

LAMBDAS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)


@dataclass(frozen=True)
class Args:
    """What to measure."""

    what: tuple[Literal["lista", "speed", "drsae", "memory"], ...] = ("lista", "speed", "drsae")
    """parts, in order"""
    seeds: int = 3
    """of lista and drsae: how many"""
    first_seed: int = 1
    """of lista and drsae; the others follow it"""
    kind: Kind = "coupled"
    """form of LISTA"""
    layer_steps: int = 40
    """of lista: gradient steps for each layer added"""
    joint_steps: int = 1200
    """of lista: gradient steps for all layers"""
    learning_rate: float = 2e-3
    """of lista"""
    patches: int = 20_000
    """of speed"""
    million: int = 1_000_000
    """of memory: patches"""
    rounds: int = 3
    """of speed: measurements, of which the best counts"""
    units: int = 400
    """of drsae"""
    epochs: int = 80
    """of drsae, with labels"""
    out: Path = Path("runs/bench-sparse")
    """folder of the figures"""


def once(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Figures from a file if it is there, else from the work, which is then kept."""
    if not path.exists():
        write_json(path, work())
    return dict(read_json(path))


def lista(args: Args, seed: int) -> dict[str, Any]:
    """NMSE in dB at 16 iterations."""
    source = data.SyntheticCodes(seed=seed)
    d, layers = source.dictionary, 16
    chosen, test = source.batch(1000, 0, "choose"), source.batch(1000, 0, "test")

    def score(pair: tuple[Tensor, Tensor], lam: float, momentum: bool) -> float:
        solver = SolverConfig(layers, momentum, restart=False)
        return nmse_db(minimise(Lasso(pair[0], d, lam), solver).z, pair[1])

    figures: dict[str, Any] = {}
    for name, momentum in (("ista", False), ("fista", True)):
        best = min(LAMBDAS, key=lambda lam, m=momentum: score(chosen, lam, m))  # type: ignore[misc]  # the loop's momentum
        figures |= {f"{name}_lam": best, f"{name}_db": score(test, best, momentum)}
    model = LISTA(d, LISTAConfig(layers, args.kind, lam=0.1))
    how = LISTATrainConfig(
        "codes", True, args.layer_steps, args.joint_steps, args.learning_rate, log_every=200
    )
    train_lista(model, lambda step: source.batch(128, step), how, lambda **row: print(row))
    with torch.no_grad():
        figures["lista_db"] = nmse_db(model.infer(test[0]), test[1])
    return figures


def speed(args: Args) -> dict[str, Any]:
    """Seconds to code patches with 256 atoms at lambda 0.1, and the objective reached."""
    from sklearn.decomposition import SparseCoder
    from sklearn.exceptions import ConvergenceWarning

    # lasso_cd asks of single precision more than it has; the objective reached is printed below.
    warnings.simplefilter("ignore", ConvergenceWarning)
    raw = data.patches(data.natural_images(), args.patches, 12, 0)
    rows = preprocessing.normalise_contrast(raw)
    x, lam = torch.from_numpy(rows), 0.1
    sample = x[: min(len(x), 5000)]
    model = learn_dictionary(sample, DictionaryConfig(256, lam, epochs=2), 0)
    d = model.dictionary.detach()
    model.solver = SolverConfig(1000, tolerance=5e-4)
    part = rows[: max(1, len(rows) // 10)]
    peers: dict[str, tuple[Callable[[], Any], int]] = {
        "FISTA, all patches": (lambda: model.infer(x), len(rows)),
        "FISTA, the peer's patches": (lambda: model.infer(torch.from_numpy(part)), len(part)),
    }
    for algorithm in ("lasso_cd", "lasso_lars"):
        coder = SparseCoder(
            np.ascontiguousarray(d.T.numpy()),
            transform_algorithm=algorithm,
            transform_alpha=lam,
            transform_max_iter=1000,
            n_jobs=torch.get_num_threads(),
        )
        peers[f"SparseCoder {algorithm}"] = (lambda c=coder: c.fit_transform(part), len(part))  # type: ignore[misc]  # the loop's coder
    figures: dict[str, Any] = {}
    for _ in range(args.rounds):
        for name, (code, count) in peers.items():
            started = time.perf_counter()
            z = torch.as_tensor(code())
            rate = count / (time.perf_counter() - started)
            energy = float(model.joint_energy(x[:count], z.to(x.dtype)).detach().mean())
            best = max(rate, figures.get(name, {}).get("codes_per_second", 0.0))
            figures[name] = {"codes_per_second": best, "energy": energy}
    return figures


def memory(args: Args) -> dict[str, float]:
    """MiB before, of the codes, and at the peak of coding; patches, seconds."""
    pictures, x = data.natural_images(), torch.empty(args.million, 144)
    for seed, part in enumerate(x.split(20_000)):  # so that the peak before is that of x
        raw = data.patches(pictures, len(part), 12, seed)
        part.copy_(torch.from_numpy(preprocessing.normalise_contrast(raw)))
    d = torch.nn.functional.normalize(torch.randn(144, 256, generator=generator_of(0)), dim=0)
    model = SparseCoding(d, 0.1, solver=SolverConfig(100, tolerance=1e-3))
    before = peak_memory()
    started = time.perf_counter()
    z = model.infer(x)
    seconds = time.perf_counter() - started
    return {
        "patches": len(x),
        "patches_mib": x.nbytes / 2**20,
        "codes_mib": z.nbytes / 2**20,
        "peak_before_mib": before,
        "peak_mib": peak_memory(),
        "seconds": seconds,
    }


def peak_memory() -> float:
    """Most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def drsae(args: Args, seed: int) -> dict[str, Any]:
    """Test errors on digits, one stratified split for each seed."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    pictures = data.digits(seed)
    x, test = torch.from_numpy(pictures.train), torch.from_numpy(pictures.test)
    labels = torch.from_numpy(pictures.train_labels)
    how = DrSAETrainConfig(20, args.epochs, momentum=0.9)
    model = train_drsae(DrSAE(x, DrSAEConfig(args.units), seed), x, labels, how, seed)
    with torch.no_grad():
        found = model.infer(test)
        guess, used = model.logits(found).argmax(1).numpy(), (found != 0).any(0)
        angles = model.angles()[used]
    figures = {
        "drsae_error": float((guess != pictures.test_labels).mean()),
        "used_units": int(used.sum()),
        "part_units": int((angles < 0.5).sum()),
        "categorical_units": int((angles > 0.7).sum()),
    }
    codes: dict[str, Callable[[Tensor], Tensor]] = {"pixels": lambda rows: rows}
    psd = train_psd(x, PSDConfig(args.units, 0.036, epochs=20), seed)
    codes["psd"] = psd.encode
    learned = learn_dictionary(x, DictionaryConfig(args.units, 0.018, True, 10, 100), seed)
    lista = LISTA(learned.dictionary, LISTAConfig(11, lam=0.018, nonnegative=True))
    cfg = LISTATrainConfig("objective", False, 0, 500, 1e-3)
    generator = torch.Generator().manual_seed(seed)
    batch = lambda step: (x[torch.randperm(len(x), generator=generator)[:100]], None)  # noqa: E731
    codes["lista"] = train_lista(lista, batch, cfg).infer
    for name, code in codes.items():
        with torch.no_grad():
            z, held = code(x).numpy(), code(test).numpy()
        linear = GridSearchCV(LogisticRegression(max_iter=2000), {"C": np.logspace(-1, 4, 6)}, cv=3)
        linear.fit(z, pictures.train_labels)
        figures[f"{name}_error"] = float((linear.predict(held) != pictures.test_labels).mean())
    peers = {
        "neighbours": (KNeighborsClassifier(), {"n_neighbors": [1, 3, 5]}),
        "svm": (SVC(), {"C": [1, 10, 100], "gamma": [1, 2, 4, 8]}),
    }
    for name, (peer, grid) in peers.items():
        search = GridSearchCV(peer, grid, cv=3).fit(pictures.train, pictures.train_labels)
        wrong = search.predict(pictures.test) != pictures.test_labels
        figures[f"{name}_error"] = float(wrong.mean())
    return figures


def main(args: Args) -> None:
    """Measure and print."""
    print(machine())
    for part in args.what:
        if part == "speed":
            figures = speed(args)
            write_json(args.out / "speed.json", figures)
            for name, row in figures.items():
                print(f"{name:28} {row['codes_per_second']:10,.0f} codes/s, E {row['energy']:.7f}")
            continue
        if part == "memory":
            found = once(args.out / "memory.json", lambda: memory(args))
            print("memory: " + ", ".join(f"{k} {v:.6g}" for k, v in found.items()))
            continue
        work = lista if part == "lista" else drsae
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            path = args.out / f"{part}-{seed}.json"
            figures = once(path, lambda w=work, s=seed: w(args, s))  # type: ignore[misc]  # the loop's
            print(f"{part} seed {seed}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
