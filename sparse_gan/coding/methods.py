"""One training for each method: data in, figures and pictures out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparse_gan import data, metrics, preprocessing
from sparse_gan.coding import dictionary, drsae, lista, psd, topographic
from sparse_gan.coding.convolutional import ConvConfig, train_convolutional
from sparse_gan.coding.groups import pooled
from sparse_gan.coding.ista import Lasso, SolverConfig, minimise
from sparse_gan.coding.local import LocalConfig, train_local
from sparse_gan.coding.setup import (
    Method,
    Patches,
    Pictures,
    SparseArgs,
    images,
    labelled,
    load,
    map_images,
    on_device,
)
from sparse_gan.coding.training import Log, generator_of
from sparse_gan.preprocessing import crop, high_pass


def code_figures(x: Tensor, z: Tensor, reconstruction: Tensor) -> dict[str, Any]:
    """Sparsity and reconstruction of codes (B, N) of rows (B, M)."""
    return {
        "active_fraction": metrics.active_fraction(z),
        "reconstruction_snr_db": metrics.snr_db(x, reconstruction),
        "dead_units": metrics.dead_units(z),
    }


def _dictionary(args: SparseArgs, log: Log) -> tuple[dict[str, Any], Pictures]:
    rows = load(args)
    cfg = dictionary.DictionaryConfig(args.units, **args.settings(lam=0.1))
    model = dictionary.learn_dictionary(rows.train, cfg, args.seed, log)
    z = model.infer(rows.test)
    with torch.no_grad():
        figures = code_figures(rows.test, z, model.decode(z))
        return figures, {"dictionary": rows.pictures(model.dictionary)}


def _lista(args: SparseArgs, log: Log) -> tuple[dict[str, Any], Pictures]:
    rows = load(args)
    chosen = args.settings(lam=0.1)
    steps = 200 * chosen.pop("epochs", 5)
    cfg = dictionary.DictionaryConfig(args.units, epochs=3, **chosen)
    learned = dictionary.learn_dictionary(rows.train, cfg, args.seed).dictionary.detach()
    model = lista.LISTA(learned, lista.LISTAConfig(16, "coupled", lam=cfg.lam)).to(learned)
    how = lista.LISTATrainConfig("objective", False, 0, steps, 3e-4)
    generator = generator_of(args.seed)

    def batch(step: int) -> tuple[Tensor, None]:
        index = torch.randint(len(rows.train), (256,), generator=generator)
        return rows.train[index.to(rows.train.device)], None

    lista.train_lista(model, batch, how, log)
    figures, curves = race(model, rows.test[:1000])
    with torch.no_grad():
        z = model.infer(rows.test)
        figures |= code_figures(rows.test, z, model.decode(z))
    return figures, {"dictionary": rows.pictures(learned), **curves}


@torch.no_grad()
def race(model: lista.LISTA, x: Tensor) -> tuple[dict[str, Any], Pictures]:
    """Gap to the least energy of LISTA, ISTA and FISTA, at equal iterations and at equal time.

    Args:
        model: a trained LISTA.
        x: (B, M) rows that it has not seen.

    Returns:
        Figures at the last layer, and curves (2, points) of time in seconds and gap for each.
    """
    problem = Lasso(x, model.dictionary, model.cfg.lam, model.cfg.nonnegative)
    least = model.joint_energy(x, minimise(problem, SolverConfig(5000, tolerance=1e-7)).z)
    depths = range(1, model.cfg.layers + 1)

    def timed(code: Callable[[], Tensor]) -> tuple[float, float]:
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            z = code()
            seconds.append(time.perf_counter() - started)
        return min(seconds), metrics.objective_gap(model.joint_energy(x, z), least)

    ours = [timed(lambda t=t: model.infer(x, t)) for t in depths]  # type: ignore[misc]  # the loop's t
    curves, figures = {"curve_lista": ours}, {"lista_gap": ours[-1][1]}
    for name, momentum in (("ista", False), ("fista", True)):
        steps = [*depths, *(2**n for n in range(5, 9))]
        solvers = [SolverConfig(t, momentum, restart=False) for t in steps]
        curves[f"curve_{name}"] = [
            timed(lambda s=s: minimise(problem, s).z)  # type: ignore[misc]  # the loop's s
            for s in solvers
        ]
        figures[f"{name}_gap_at_{model.cfg.layers}"] = curves[f"curve_{name}"][len(depths) - 1][1]
    return figures, {name: np.array(points, np.float32).T for name, points in curves.items()}


def _psd(args: SparseArgs, log: Log) -> tuple[dict[str, Any], Pictures]:
    rows = load(args)
    model = psd.train_psd(
        rows.train, psd.PSDConfig(args.units, **args.settings(lam=0.2)), args.seed, log
    )
    z = model.infer(rows.test)
    with torch.no_grad():
        figures = code_figures(rows.test, z, model.decode(z))
        guess = model.encode(rows.test)
        figures["encoder_snr_db"] = metrics.snr_db(rows.test, model.decode(guess))
        pictures = {
            "dictionary": rows.pictures(model.dictionary),
            "encoder": rows.pictures(model.weight.T),
        }
    return figures, pictures


def _drsae(args: SparseArgs, log: Log) -> tuple[dict[str, Any], Pictures]:
    pictures = labelled(args)
    x, test = on_device(args, pictures.train), on_device(args, pictures.test)
    labels = torch.from_numpy(pictures.train_labels).to(x.device)
    lam = drsae.DrSAEConfig.lam if args.lam is None else args.lam
    cfg = drsae.DrSAEConfig(args.units, pictures.classes, lam=lam)
    epochs = 80 if args.epochs is None else args.epochs
    how = drsae.DrSAETrainConfig(min(20, epochs), epochs, momentum=0.9)
    model = drsae.train_drsae(drsae.DrSAE(x, cfg, args.seed), x, labels, how, args.seed, log)
    with torch.no_grad():
        z = model.infer(test)
        wrong = model.logits(z).argmax(1).cpu().numpy() != pictures.test_labels
        figures = {"test_error": float(wrong.mean()), "test_wrong": int(wrong.sum())}
        figures |= {"test_samples": len(wrong), **code_figures(test, z, model.decode(z))}
        used = (z != 0).any(0)
        used = used if used.any() else ~used
        angles = model.angles()[used]  # an idle unit still has the angle that it started with
        figures["part_units"] = int((angles < drsae.PART_ANGLE).sum())
        figures["categorical_units"] = int((angles > drsae.CATEGORY_ANGLE).sum())
        order = used.nonzero()[:, 0][angles.argsort()]
        rows = Patches(x, test, pictures.shape)
        shown = {
            "dictionary": rows.pictures(model.decoder[:, order]),
            "encoder": rows.pictures(model.encoder[order].T),
            "angles": angles.sort().values.cpu().numpy(),
        }
    return figures, shown


def _topographic(args: SparseArgs, log: Log) -> tuple[dict[str, Any], Pictures]:
    rows = load(args, whiten=True)
    side = int(args.units**0.5)
    chosen = args.settings()
    cfg = topographic.TopographicConfig(side, min(6, side), min(3, side), **chosen)
    model = topographic.train_topographic(rows.train, cfg, args.seed, log)
    figures: dict[str, Any] = {}
    atoms = rows.pictures(model.dictionary)
    for name, value in metrics.topography(atoms, side).items():
        figures[f"map_{name}"] = value
    figures |= invariances(args, model)
    with torch.no_grad():
        z = model.encode(rows.test)
        figures["reconstruction_snr_db"] = metrics.snr_db(rows.test, model.decode(z))
    return figures, {"map": atoms}


@torch.no_grad()
def invariances(args: SparseArgs, model: topographic.GroupSparseAutoencoder) -> dict[str, float]:
    """Change of single (`|z|`) and of pooled features under a shift and a rotation of the patch.

    ``shuffled`` are pools of the same units in random places of the map: what pooling does without
    the map's order.
    """
    count, size, pictures = 2000, args.size, map_images(args)
    learned = data.patches(pictures, args.count, size, args.seed)
    prepare = preprocessing.PatchWhitening.fit(learned)
    big = data.patches(pictures, count, size + 8, args.seed + 1)
    big = big[preprocessing.has_contrast(crop(big, size))]

    def codes(patches: data.Images) -> Tensor:
        return model.encode(on_device(args, prepare(patches)))

    views = {f"shift_{n}px": crop(big, size, shift=n) for n in (1, 2)}
    views |= {f"rotation_{d}deg": crop(big, size, degrees=d) for d in (10, 20)}
    still = codes(crop(big, size))
    places = torch.randperm(still.shape[1], generator=generator_of(args.seed)).to(still.device)
    figures = {}
    for name, view in views.items():
        moved = codes(view)
        for kind, feature in (
            ("single", Tensor.abs),
            ("pooled", lambda z: pooled(z, model.pools)),
            ("shuffled", lambda z: pooled(z[:, places], model.pools)),
        ):
            f, g = feature(still), feature(moved)
            figures[f"change_{name}_{kind}"] = metrics.invariance(f, g, f.roll(len(f) // 2, 0))
    return figures


def _convolutional(args: SparseArgs, log: Log) -> tuple[dict[str, Any], Pictures]:
    x = _windows(args, 48)
    cut = max(1, len(x) // 10)
    cfg = ConvConfig(min(32, args.units), 8, **args.settings(lam=0.1))
    model = train_convolutional(x[cut:], cfg, args.seed, log)
    z = model.infer(x[:cut])
    with torch.no_grad():
        figures = code_figures(x[:cut], z, model.decode(z))
        figures["encoder_snr_db"] = metrics.snr_db(x[:cut], model.decode(model.encode(x[:cut])))
        return figures, {"dictionary": model.filters[:, 0].cpu().numpy()}


def _local(args: SparseArgs, log: Log) -> tuple[dict[str, Any], Pictures]:
    cfg = LocalConfig(32, 32, window=10, **args.settings(lam=0.02))
    x = _windows(args, 32)
    cut = max(1, len(x) // 10)
    model = train_local(x[cut:], cfg, args.seed, log)
    with torch.no_grad():
        z = model.encode(x[:cut])
        figures = {"reconstruction_snr_db": metrics.snr_db(x[:cut], model.decode(z))}
        filters = model.decoder.flatten(0, 1).reshape(-1, cfg.window, cfg.window)
        return figures, {"dictionary": filters.cpu().numpy()}


def _windows(args: SparseArgs, side: int) -> Tensor:
    """High-passed windows (B, 1, side, side), of unit std, for a fortieth of the samples."""
    count = max(20, args.count // 40)
    rows = data.patches(images(args), count, side, args.seed)
    flat = high_pass(rows)
    return on_device(args, flat)[:, None]


METHODS: dict[Method, Callable[[SparseArgs, Log], tuple[dict[str, Any], Pictures]]] = {
    "dictionary": _dictionary,
    "lista": _lista,
    "psd": _psd,
    "drsae": _drsae,
    "topographic": _topographic,
    "convolutional": _convolutional,
    "local": _local,
}
