"""A cluster of Ray whose machines are processes of this one, on the loopback interface.

Run as a program, it is Ray's command line for such a machine.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests.envs.test_orphans import wait_for

SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's switch: 0 keeps a process to the loopback interface. Ray reads it when it is imported."""
ROOT = Path(__file__).resolve().parents[1]


class Cluster:
    """Machines of one CPU each, with folders of their own."""

    def __init__(self, home: Path) -> None:
        self.home, self.nodes = home, list[subprocess.Popen[bytes]]()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"

    def add(self, before: Sequence[str] = (), gpus: int = 0) -> subprocess.Popen[bytes]:
        """Start a machine, by the words of a command before it; the first is the head.

        GPUs are a promise to Ray that nobody checks.
        """
        port = self.address.rpartition(":")[2]
        role = ["--head", f"--port={port}", "--include-dashboard=false", "--no-monitor"]
        words = role if not self.nodes else [f"--address={self.address}"]
        words += ["--node-ip-address=127.0.0.1", "--num-cpus=1", f"--num-gpus={gpus}", "--block"]
        words += ["--object-store-memory=100000000", "--include-log-monitor=false"]
        folder = self.folder(len(self.nodes))
        folder.mkdir()
        with (folder / "log").open("wb") as log:
            node = subprocess.Popen(
                [*before, sys.executable, str(Path(__file__)), "start", *words],
                cwd=folder,
                stdout=log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if name != SWITCH},
                start_new_session=True,
            )
        self.nodes.append(node)
        if len(self.nodes) == 1:
            wait_for("the head", self._reachable)
        return node

    def folder(self, number: int) -> Path:
        """A machine's working folder."""
        return self.home / f"node-{number}"

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """End a machine with all its processes, as a power cut does."""
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def _reachable(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with socket.socket() as line:
            return line.connect_ex((host, int(port))) == 0


@contextmanager
def cluster() -> Iterator[Cluster]:
    """An empty cluster that only processes with its token may join, as this one does."""
    home = Path(tempfile.mkdtemp(prefix="wm-ray-", dir="/tmp"))  # sockets have short names
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), SWITCH: "0"}
    own |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(home), "PYTHONPATH": str(ROOT)}
    own |= {"RAY_kill_worker_timeout_milliseconds": "500"}  # for one that is stopped
    with mock.patch.dict(os.environ, own):
        os.environ.pop("RAY_ADDRESS", None)
        made = Cluster(home)
        try:
            yield made
        finally:
            for node in made.nodes:
                if node.poll() is None:
                    made.kill(node)
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    import ray._private.services as services
    from ray.scripts import scripts

    services.get_node_ip_address = lambda address=None: "127.0.0.1"
    scripts.get_ray_client_dependency_error = ImportError  # as if it had no server for clients
    scripts.main()
