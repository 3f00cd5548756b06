"""The real Ray: two machines of one CPU each, which are processes with folders of their own."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import executor_work as work
from tests.envs.test_orphans import wait_for
from worldmodels import executors
from worldmodels.executors import Executor, WorkerDied
from worldmodels.protocols import UserError

if importlib.util.find_spec("ray") is None:  # imported later, since it reads its settings then
    pytest.skip("Ray is not installed", allow_module_level=True)

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's switch: 0 keeps a process to the loopback interface."""
ROOT = Path(__file__).resolve().parents[1]


class Cluster:
    """Machines on the loopback interface; only those with the token may join."""

    def __init__(self, home: Path) -> None:
        self.home, self.nodes = home, list[subprocess.Popen[bytes]]()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"

    def add(self) -> subprocess.Popen[bytes]:
        """Start a machine of one CPU; the first is the head."""
        port = self.address.rpartition(":")[2]
        role = ["--head", f"--port={port}", "--include-dashboard=false"]
        words = role if not self.nodes else [f"--address={self.address}"]
        words += ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--block"]
        words += ["--object-store-memory=100000000"]
        folder = self.home / f"node-{len(self.nodes)}"
        folder.mkdir()
        with (folder / "log").open("wb") as log:
            node = subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "ray_node.py"), "start", *words],
                cwd=folder,
                stdout=log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if name != LOOPBACK},
                start_new_session=True,
            )
        self.nodes.append(node)
        return node

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """End a machine with all its processes, as a power cut does."""
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def reachable(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with socket.socket() as line:
            return line.connect_ex((host, int(port))) == 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    home = Path(tempfile.mkdtemp(prefix="wm-ray-", dir="/tmp"))  # sockets have short names
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    own |= {
        LOOPBACK: "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(home),
        "PYTHONPATH": str(ROOT),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        made = Cluster(home)
        made.add()
        wait_for("the head", made.reachable)
        made.add()
        yield made
        for node in made.nodes:
            if node.poll() is None:
                made.kill(node)
        shutil.rmtree(home, ignore_errors=True)


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
    assert found == {str(cluster.home / f"node-{i}") for i in range(2)}


def test_a_killed_actor_costs_its_item_only(pool: Executor, tmp_path: Path) -> None:
    items = [str(tmp_path / f"{i}") for i in range(4)]
    assert dict(pool.map(work.die_once, items)) == dict(enumerate(items))
    with pytest.raises(WorkerDied, match=r"item 1: 'kill', which has cost 3 workers") as caught:
        list(pool.map(work.die, ["", "kill", ""]))
    assert caught.value.index == 1


def test_a_stopped_actor_is_replaced(
    pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "SILENCE", 4.0)
    items = [str(tmp_path / f"{i}") for i in range(2)]
    assert dict(pool.map(work.stop_once, items)) == dict(enumerate(items))


def test_fewer_workers_than_asked_for_are_told(
    pool: Executor, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    pool.close()
    with executors.make("ray", 5, cluster.address) as made:
        assert made.workers == 2
        assert dict(made.map(work.square, range(9))) == {i: i * i for i in range(9)}
    assert "the cluster has 2 CPUs: 2 workers, not 5" in capfd.readouterr().err


def test_a_killed_machine_costs_its_items_only_and_another_may_join(
    cluster: Cluster,
) -> None:
    with executors.make("ray", None, cluster.address) as made:
        results = made.map(work.sleep_in_folder, [0.5] * 20)
        found = [next(results)]
        while found[-1][1] != str(cluster.home / "node-1"):
            found.append(next(results))
        cluster.kill(cluster.nodes[1])
        found += results
        assert sorted(index for index, _ in found) == [*range(20)]
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
