"""The real Ray: two machines of one CPU each, which are processes with folders of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import executor_work as work
from tests import loopback
from tests.envs.test_orphans import wait_for
from tests.loopback import ROOT, Cluster
from worldmodels import executors
from worldmodels.evaluation import evaluate
from worldmodels.executors import Executor, WorkerDied
from worldmodels.executors import cluster as ray_executor
from worldmodels.experience.collect import CollectConfig, collect
from worldmodels.experience.exploration import AR1Config
from worldmodels.protocols import UserError

if importlib.util.find_spec("ray") is None:  # imported later, since it reads its settings then
    pytest.skip("Ray is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with loopback.cluster() as made:
        made.add()
        made.add(gpus=1)
        yield made


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PING", "LOOK"):
        monkeypatch.setattr(ray_executor, name, 0.5)


@pytest.fixture(scope="module")
def pool(cluster: Cluster) -> Iterator[Executor]:
    with executors.make("ray", None, cluster.address) as made:
        wait_for("two machines", lambda: cpus() == 2)
        yield made


def cpus() -> int:
    import ray

    return int(ray.cluster_resources().get("CPU", 0))


def test_results_and_errors_are_those_of_local_processes(pool: Executor) -> None:
    assert dict(pool.map(work.square, range(20))) == {i: i * i for i in range(20)}
    with pytest.raises(UserError, match="no sevens") as caught:
        list(pool.map(work.refuse_seven, [1, 7, 2, 3]))
    assert caught.value.__notes__ == ["while working on item 1: 7"]
    assert {threads for _, (_, threads, _) in pool.map(work.facts, range(4))} == {"1"}


def test_both_machines_work_each_in_its_own_folder(pool: Executor, cluster: Cluster) -> None:
    wait_for("both", lambda: len({f for _, f in pool.map(work.folder, range(8))}) == 2)
    found = {folder for _, folder in pool.map(work.folder, range(8))}
    assert found == {str(cluster.folder(i)) for i in range(2)}


def test_a_killed_actor_costs_its_item_only(pool: Executor, tmp_path: Path) -> None:
    items = [str(tmp_path / f"{i}") for i in range(4)]
    assert dict(pool.map(work.die_once, items)) == dict(enumerate(items))
    with pytest.raises(WorkerDied, match=r"item 1: 'kill', which has cost 3 workers") as caught:
        list(pool.map(work.die, ["", "kill", ""]))
    assert caught.value.index == 1


def test_a_stopped_actor_is_replaced(
    pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "SILENCE", 3.0)
    items = [str(tmp_path / f"{i}") for i in range(2)]
    assert dict(pool.map(work.stop_once, items)) == dict(enumerate(items))


def test_episodes_are_those_of_this_process_and_lie_in_its_folder(
    pool: Executor, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env, cfg = "worldmodels/CarRacing-v3", CollectConfig(group=1, max_steps=12)
    for out, place in (("here", None), ("there", pool)):
        collect(cfg, env, AR1Config(), [3, 4], Path(out), executor=place)
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "there").iterdir())
    for name in names:
        raw = [(tmp_path / out / name).read_bytes() for out in ("here", "there")]
        assert raw[0] == raw[1], name
    alone, there = (
        evaluate("car-racing", env, [1_000_000, 1_000_001], group_size=1, max_steps=8, **place)
        for place in ({"workers": 1}, {"executor": pool})
    )
    assert list(alone.returns) == list(there.returns)
    assert all([*os.listdir(cluster.folder(i))] == ["log"] for i in range(2))


def test_fewer_workers_than_asked_for_are_told(
    pool: Executor, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    pool.close()
    with executors.make("ray", 5, cluster.address) as made:
        assert made.workers == 2
        assert dict(made.map(work.square, range(9))) == {i: i * i for i in range(9)}
    assert "the cluster has 2 CPUs: 2 workers, not 5" in capfd.readouterr().err


def test_workers_with_a_gpu_are_where_gpus_are(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    with executors.make("ray", 2, cluster.address, gpus=1) as made:
        assert made.workers == 1
        assert {*made.map(work.gpus, [1])} == {(0, "0")}
        assert {f for _, f in made.map(work.folder, [1, 2])} == {str(cluster.folder(1))}
    assert "the cluster has 2 CPUs and 1 GPUs: 1 workers, not 2" in capfd.readouterr().err


def test_modules_of_the_users_travel(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("from tests.envs.blocks import *\nWHERE = __file__\n")
    script = f"""
import os, sys
sys.path.append({str(tmp_path)!r})
from worldmodels import envs, executors
from tests import executor_work as work
envs.import_module("theirs:Any-v0")
with executors.make("ray", 2, {cluster.address!r}) as pool:
    os.rename({str(tmp_path / "theirs.py")!r}, {str(tmp_path / "gone.py")!r})
    ((_, found),) = pool.map(work.where, ["theirs"])
print(found)
"""
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "py_modules" in found.stdout, found.stderr


def test_a_killed_machine_costs_its_items_only_and_another_may_join(
    cluster: Cluster,
) -> None:
    with executors.make("ray", None, cluster.address) as made:
        results = made.map(work.sleep_in_folder, [0.3] * 10)
        found = [next(results)]
        while found[-1][1] != str(cluster.folder(1)):
            found.append(next(results))
        cluster.kill(cluster.nodes[1])
        found += results
        assert sorted(index for index, _ in found) == [*range(10)]
        cluster.add()
        wait_for("the new machine", lambda: cpus() == 2)
        wait_for("its worker", lambda: len({f for _, f in made.map(work.folder, range(8))}) == 2)


def test_a_cluster_that_cannot_be_joined_is_told(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"cannot join the Ray cluster 127.0.0.1:1: .*refused"):
        executors.make("ray", 2, "127.0.0.1:1")
    with pytest.raises(UserError, match="cannot join the Ray cluster nonsense"):
        executors.make("ray", 2, "nonsense")
