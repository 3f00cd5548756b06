from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # workers import this file by name

from tests import executor_work as work  # noqa: E402
from worldmodels import executors  # noqa: E402
from worldmodels.executors import Executor, WorkerDied, processes  # noqa: E402
from worldmodels.protocols import UserError  # noqa: E402


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with executors.make("processes", 2) as made:
        yield made


@pytest.fixture(params=["serial", "processes"])
def executor(request: pytest.FixtureRequest, pool: Executor) -> Executor:
    return pool if request.param == "processes" else executors.make("serial")


def test_every_item_comes_back_with_its_position(executor: Executor) -> None:
    assert dict(executor.map(work.square, range(20))) == {i: i * i for i in range(20)}
    assert dict(executor.map(work.square, [])) == {}
    assert dict(executor.map(work.add(3), [1, 2])) == {0: 4, 1: 5}


def test_an_exception_arrives_as_itself_and_names_its_item(executor: Executor) -> None:
    with pytest.raises(UserError, match="no sevens") as caught:
        list(executor.map(work.refuse_seven, [1, 7, 2, 3]))
    assert str(caught.value) == "no sevens"
    assert caught.value.__notes__ == ["while working on item 1: 7"]
    assert dict(executor.map(work.square, [4])) == {0: 16}


def test_the_workers_traceback_is_shown(pool: Executor) -> None:
    with pytest.raises(UserError) as caught:
        list(pool.map(work.refuse_seven, [7]))
    assert "in refuse_seven" in str(caught.value.__cause__)


def test_results_come_as_they_are_finished(pool: Executor) -> None:
    list(pool.map(work.sleep, [0, 0]))  # both processes are up
    assert [index for index, _ in pool.map(work.sleep, [0.4, 0.0, 0.0])] == [1, 2, 0]


def test_items_are_taken_when_a_worker_is_free(pool: Executor) -> None:
    taken = []

    def items() -> Iterator[int]:
        for i in range(6):
            taken.append(i)
            yield i

    results = pool.map(work.square, items())
    next(results)
    assert len(taken) == 3, "the worker has its next item before the caller uses the result"
    assert len(list(results)) == 5


def test_a_call_that_is_given_up_does_not_disturb_the_next(pool: Executor) -> None:
    results = pool.map(work.sleep, [0.0, 0.3, 0.3])
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert dict(pool.map(work.square, range(5))) == {i: i * i for i in range(5)}


def test_workers_live_on_and_have_one_thread(pool: Executor) -> None:
    first = {v for _, v in pool.map(work.facts, range(8))}
    again = {v for _, v in pool.map(work.facts, range(8))}
    pids = {pid for pid, _, _ in first}
    assert len(pids) <= 2
    assert os.getpid() not in pids
    assert {pid for pid, _, _ in again} <= pids | {pid for pid, _, _ in first}
    assert {threads for _, threads, _ in first} == {"1"}
    assert not any(torch for _, _, torch in first), "workers import what they need, when they do"


def test_a_copy_has_workers_of_its_own(executor: Executor) -> None:
    assert dict(executor.map(work.square, [3])) == {0: 9}  # starts the original's workers
    for other in (copy.copy(executor), copy.deepcopy(executor)):
        assert other.workers == executor.workers
        other.close()
    assert dict(executor.map(work.square, [3])) == {0: 9}  # which are still there
    with pickle.loads(pickle.dumps(executor)) as sent:
        assert sent.workers == executor.workers


def test_threads_of_this_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with executors.make("processes", 1) as made:
        list(made.map(work.square, [1]))
        assert os.environ["OMP_NUM_THREADS"] == "7"
        assert "MKL_NUM_THREADS" not in os.environ


def test_the_item_of_a_killed_worker_is_done_again(
    pool: Executor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    items = [str(tmp_path / f"{i}") for i in range(3)]
    assert dict(pool.map(work.die_once, items)) == dict(enumerate(items))
    assert capfd.readouterr().err.count("is done again") == 3


def test_an_item_that_crashes_three_workers_is_named_and_the_pool_recovers(pool: Executor) -> None:
    reason = r"SIGABRT while working on item 1: 'abort', which has cost 3 workers"
    with pytest.raises(WorkerDied, match=reason) as caught:
        list(pool.map(work.die, ["", "abort", ""]))
    assert caught.value.index == 1
    with pytest.raises(WorkerDied, match=r"ended with exit status 3 while working on item 0"):
        list(pool.map(work.die, ["exit"]))
    assert dict(pool.map(work.square, [3])) == {0: 9}


def test_kills_by_others_count_less_than_crashes_unless_memory_ran_out(
    pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = f"{tmp_path}/a 4"
    assert dict(pool.map(work.die_often, [item])) == {0: item}
    monkeypatch.setattr(processes, "KILLS", 4)
    with pytest.raises(WorkerDied, match=r"killed by SIGKILL while .*which has cost 4 workers"):
        list(pool.map(work.die_often, [f"{tmp_path}/b 4"]))
    monkeypatch.setattr(processes, "KILLS", 1)
    with pytest.raises(WorkerDied, match="killed by SIGTERM"):
        list(pool.map(work.die, ["end"]))
    monkeypatch.setattr(processes, "_oom_kills", iter(range(99)).__next__)
    with pytest.raises(WorkerDied, match=r"SIGKILL .*fewer workers.* which has cost 3 workers"):
        list(pool.map(work.die_often, [f"{tmp_path}/c 4"]))


def test_a_stopped_worker_is_replaced(
    pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "SILENCE", 3.0)
    items = [str(tmp_path / f"{i}") for i in range(2)]
    assert dict(pool.map(work.stop_once, items)) == dict(enumerate(items))


def test_an_hour_in_which_nothing_ran_is_no_silence(
    pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = pool.map(work.sleep, [0.0, 0.5])  # both processes are up, one is busy
    next(results)
    assert isinstance(pool, processes.ProcessExecutor)
    for worker in pool._workers.values():
        before = pool._silence(worker)
        stopped = types.SimpleNamespace(monotonic=lambda: time.monotonic() + 3600)
        with monkeypatch.context() as patch:
            patch.setattr(processes, "time", stopped)
            assert pool._silence(worker) - before <= 2 * executors.BEAT
    assert [index for index, _ in results] == [1]


def test_a_worker_that_stops_in_the_middle_of_its_answer_is_replaced(
    pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "SILENCE", 3.0)
    found = dict(pool.map(work.stop_while_answering, [str(tmp_path / "a")]))
    assert len(found[0]) == work.LARGE


def test_what_cannot_be_sent_is_told(pool: Executor) -> None:
    with pytest.raises(RuntimeError, match="result of a worker cannot be sent"):
        list(pool.map(work.unpicklable, [1]))
    with pytest.raises(RuntimeError, match="exception of a worker cannot be sent"):
        list(pool.map(work.raise_unpicklable, [1]))
    with pytest.raises((AttributeError, TypeError)):
        unsendable: list[Any] = [lambda: 1]
        list(pool.map(work.square, unsendable))
    assert dict(pool.map(work.square, [3])) == {0: 9}


SCRIPT = """
import signal
from tests import executor_work as work
from worldmodels import executors
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    with executors.make("processes", 2) as pool:
        for index, pid in pool.map(work.pid_then_sleep, [0.0, 0.0, 60.0, 60.0]):
            print(pid, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pids = {int(process.stdout.readline()) for _ in range(2)}
    process.send_signal(how)
    _, errors = process.communicate(timeout=300)  # no timing: a guard against hanging
    assert process.returncode != 0
    assert ("KeyboardInterrupt" in errors) == (how == signal.SIGINT)
    assert "Process worldmodels" not in errors
    deadline = time.monotonic() + 10
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_make(monkeypatch: pytest.MonkeyPatch) -> None:
    assert executors.make(None, 1).workers == 1
    assert isinstance(executors.make(None, 1), executors.SerialExecutor)
    assert executors.make(None, 3).workers == 3
    monkeypatch.setattr(executors, "usable_cores", lambda: 5)
    assert executors.make().workers == 5
    with pytest.raises(UserError, match="workers is 0; it must be at least 1"):
        executors.make(None, 0)
    with pytest.raises(UserError, match="kind is 'threads'; allowed"):
        executors.make("threads", 2)  # type: ignore[arg-type]


def test_ray_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'worldmodels-control\[ray\]'"):
        executors.make("ray", 2)
