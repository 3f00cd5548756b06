from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experience import fakes
from worldmodels import executors
from worldmodels.experience.collect import CollectConfig, Part, collect, collect_parts
from worldmodels.experience.exploration import AgentNoiseConfig, AR1Config
from worldmodels.experience.store import EpisodeStore
from worldmodels.protocols import TRAINING_SEED_LIMIT, UserError

ROOT = Path(__file__).resolve().parents[2]
SEEDS = list(range(10, 21))
CFG = CollectConfig(group=4)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(out: Path, **kwargs: object) -> int:
    return collect(CFG, fakes.BOX, AR1Config(), SEEDS, out, **kwargs)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert run(out) == sum(map(fakes.steps_of, SEEDS))
    return out


def test_what_was_driven_is_what_is_stored(whole: Path) -> None:
    store = EpisodeStore([whole])
    assert [r.entry.seed for r in store.episodes] == SEEDS
    assert store.env_id == fakes.BOX
    assert store.frame_shape == (64, 64, 3)
    assert store.action_spec.high == (1.0, 2.0)
    for index, seed in enumerate(SEEDS):
        e = store.read(index)
        assert len(e) == fakes.steps_of(seed)
        assert (e.terminated, e.truncated) == (seed % 2 == 0, seed % 2 == 1)
        assert e.obs[:, 9, 9, 0].tolist() == list(range(len(e) + 1))
        assert (e.obs[:, 9, 9, 1] == seed).all()
        level = 128 + np.concatenate([[0], np.cumsum(e.reward)])
        # Truncated to an integer by the environment; rewards are stored as float32.
        assert (np.abs(e.obs[:, 9, 9, 2] - np.floor(level) % 256) % 255 <= 1).all()
        jitter = np.random.default_rng(seed).random(1000)[: len(e)]
        assert e.reward == pytest.approx(e.action.sum(1) + jitter, abs=1e-5)
    assert store.meta["versions"]["gymnasium"]


def test_workers_do_not_matter(whole: Path, tmp_path: Path) -> None:
    with executors.make("processes", 3) as pool:
        run(tmp_path, executor=pool)
    assert contents(tmp_path) == contents(whole)


def test_one_call_serves_all_behaviours_and_each_agent_travels_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    loads, calls = list[Path](), list[int]()

    def load(folder: Path) -> fakes.EchoPolicy:
        loads.append(folder)
        return fakes.load_echo(folder)

    class Spy(executors.SerialExecutor):
        remote = True

        def map(self, fn: Any, items: Any) -> Any:
            calls.append(len(items))
            return super().map(pickle.loads(pickle.dumps(fn)), items)

    noises = [AgentNoiseConfig(tmp_path, scale=scale) for scale in (0.0, 0.1)]
    parts = [Part(noises[0], SEEDS[:6], tmp_path / "0"), Part(noises[1], SEEDS[6:], tmp_path / "1")]
    steps = collect_parts(CFG, fakes.BOX, parts, executor=Spy(), load_policy=load)
    assert (steps, calls, loads) == (sum(map(fakes.steps_of, SEEDS)), [4], [tmp_path])
    for behaviour, seeds, out in parts:
        alone = tmp_path / f"alone-{out.name}"
        collect(CFG, fakes.BOX, behaviour, seeds, alone, load_policy=load)
        assert contents(alone) == contents(out)


def test_order_and_grouping_do_not_change_an_episode(whole: Path, tmp_path: Path) -> None:
    collect(CollectConfig(group=3), fakes.BOX, AR1Config(), SEEDS[::-1], tmp_path)
    a, b = EpisodeStore([whole]), EpisodeStore([tmp_path])
    by_seed = {r.entry.seed: r.index for r in b.episodes}
    for record in a.episodes:
        assert np.array_equal(a.read(record.index).obs, b.read(by_seed[record.entry.seed]).obs)


def test_what_is_there_is_kept(whole: Path, tmp_path: Path) -> None:
    for name, raw in contents(whole).items():
        (tmp_path / name).write_bytes(raw)
    lost = sorted(tmp_path.glob("*.shard"))[1]
    lost.unlink()
    (tmp_path / ".seeds-000010-000013-abc.shard").write_bytes(b"left by a killed writer")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.shard")}
    assert run(tmp_path) == sum(map(fakes.steps_of, SEEDS[4:8]))
    assert contents(tmp_path) == contents(whole)
    assert all(p.stat().st_mtime_ns == t for p, t in before.items() if not p.name.startswith("."))
    assert run(tmp_path) == 0


def test_more_seeds_extend_a_collection(tmp_path: Path) -> None:
    collect(CFG, fakes.BOX, AR1Config(), range(4), tmp_path)
    new_steps = collect(CFG, fakes.BOX, AR1Config(), range(8), tmp_path)
    assert new_steps == sum(map(fakes.steps_of, range(4, 8)))
    assert len(EpisodeStore([tmp_path])) == 8


def test_another_collection_is_not_mixed_in(whole: Path, tmp_path: Path) -> None:
    for name, raw in contents(whole).items():
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError, match=r"collected with behaviour .*choose an empty folder"):
        collect(CFG, fakes.BOX, AR1Config(rho=0.5), SEEDS, tmp_path)
    with pytest.raises(UserError, match="collected with max_steps None, not 5"):
        collect(CollectConfig(group=4, max_steps=5), fakes.BOX, AR1Config(), SEEDS, tmp_path)
    with pytest.raises(UserError, match="other groups of seeds"):
        collect(CollectConfig(group=5), fakes.BOX, AR1Config(), SEEDS, tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_damaged_shard_is_named_not_overwritten(whole: Path, tmp_path: Path) -> None:
    name, raw = next((n, r) for n, r in contents(whole).items() if n.endswith(".shard"))
    (tmp_path / name).write_bytes(raw[:-5])
    with pytest.raises(UserError, match=f"{name} has .* bytes and should have"):
        run(tmp_path)


def test_discrete_actions_and_a_limit_of_steps(tmp_path: Path) -> None:
    collect(CollectConfig(max_steps=6), fakes.DISCRETE, AR1Config(), [0, 4], tmp_path)
    store = EpisodeStore([tmp_path])
    assert [len(store.read(i)) for i in range(2)] == [5, 6]
    assert store.read(1).truncated
    assert store.read(0).action.dtype == np.int64


def test_an_agent_with_noise_collects_and_is_known_by_its_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        out = tmp_path / f"{name}-data"
        cfg = AgentNoiseConfig(tmp_path / name)
        collect(CFG, fakes.BOX, cfg, [1, 2], out, load_policy=fakes.load_echo)
    assert contents(tmp_path / "one-data") == contents(tmp_path / "two-data")


def test_an_agent_has_one_thread_here_as_in_a_worker(tmp_path: Path) -> None:
    import torch

    found = []

    class Asks(fakes.EchoPolicy):
        def predict(self, *args: Any, **kwargs: Any) -> Any:
            found.append(torch.get_num_threads())
            return super().predict(*args, **kwargs)

    (tmp_path / "config.json").write_text("{}")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cfg = AgentNoiseConfig(tmp_path)
        collect(CFG, fakes.BOX, cfg, [1], tmp_path / "out", load_policy=lambda folder: Asks())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(found) == {1}


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([], "no seeds"),
        ([1, 2, 1], "given twice"),
        ([TRAINING_SEED_LIMIT], "seed 400000 is reserved"),
        ([-1], "seed -1 is reserved"),
    ],
)
def test_unusable_seeds(tmp_path: Path, seeds: list[int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        collect(CFG, fakes.BOX, AR1Config(), seeds, tmp_path)


@pytest.mark.parametrize("cfg", [{"group": 0}, {"group": 17}, {"max_steps": 0}])
def test_config_out_of_range(cfg: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"CollectConfig.{next(iter(cfg))} is"):
        CollectConfig(**cfg)


def test_a_bad_environment_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown"):
        collect(CFG, "NoSuchEnv-v0", AR1Config(), [1], tmp_path / "new")
    assert not (tmp_path / "new").exists()


KILLED = """
import sys
from pathlib import Path
from worldmodels.experience.collect import CollectConfig, collect
from worldmodels.experience.exploration import AR1Config
if __name__ == "__main__":
    collect(CollectConfig(group=4), sys.argv[1], AR1Config(), range(10, 21), Path(sys.argv[2]), 1,
            env_kwargs={"pause": 0.002})
"""


def test_a_killed_collection_resumes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, str(script), fakes.BOX, str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    while process.poll() is None and not list(out.glob("seeds-*.shard")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole, unbroken = len(list(out.glob("seeds-*.shard"))), tmp_path / "unbroken"
    assert 1 <= whole < 3
    kept = EpisodeStore([out])
    assert all(len(kept.read(index)) for index in range(len(kept)))
    slow = {"pause": 0.0001}
    with pytest.raises(UserError, match="env_kwargs"):
        collect(CFG, fakes.BOX, AR1Config(), SEEDS, out, env_kwargs=slow)
    arguments = {"env_kwargs": {"pause": 0.002}}
    run(out, **arguments)
    run(unbroken, **arguments)
    assert contents(out) == contents(unbroken)


def test_held_actions_are_stored_once_and_all_steps_are_counted(tmp_path: Path) -> None:
    cfg = CollectConfig(group=4, action_repeat=3)
    steps = collect(cfg, fakes.BOX, AR1Config(), SEEDS, tmp_path)
    assert steps == sum(map(fakes.steps_of, SEEDS))
    store = EpisodeStore([tmp_path])
    assert store.action_repeat == 3
    for index, seed in enumerate(SEEDS):
        steps, entry, e = fakes.steps_of(seed), store.episodes[index].entry, store.read(index)
        assert (entry.env_steps, len(e)) == (steps, -(-steps // 3))
        assert e.obs[:, 9, 9, 0].tolist() == [*range(0, steps, 3), steps]
        jitter = np.random.default_rng(seed).random(1000)[:3].sum()
        assert e.reward[0] == pytest.approx(3 * e.action[0].sum() + jitter, abs=1e-5)


def test_sets_with_other_holds_are_not_mixed(whole: Path, tmp_path: Path) -> None:
    collect(CollectConfig(group=4, action_repeat=3), fakes.BOX, AR1Config(), SEEDS, tmp_path)
    with pytest.raises(UserError, match="action_repeat 3"):
        EpisodeStore([whole, tmp_path])


def test_an_episode_given_up_is_told_from_one_that_was_cut(tmp_path: Path) -> None:
    still = AR1Config(scale=0.0, bias=(-1.0, -1.0), bias_std=0.0)  # moves the level down
    collect(CollectConfig(group=4, patience=7), fakes.BOX, still, SEEDS, tmp_path)
    store = EpisodeStore([tmp_path])
    for index in range(len(store)):
        e = store.read(index)
        paid = np.flatnonzero(e.reward > 0)
        silent = len(e) - (paid[-1] + 1 if len(paid) else 0)
        assert e.lost == (silent >= 7 and not e.terminated)
