"""The process that scores is lost with the upload that breaks it, and the next upload is scored by a new one."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from toy_answers import ToyAnswers, failing, opened, refusing

from anomaly_lab.serving.jobs import Job
from anomaly_lab.serving.worker import Worker
from anomaly_lab.types import UserError


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(opened, timeout=60, memory=2**28)
    worker.start()
    yield worker
    worker.close()


@pytest.fixture
def job(tmp_path: Path) -> Callable[[bytes], Job]:
    def make(content: bytes) -> Job:
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / "0000").write_bytes(content)
        return Job(tmp_path / "files")

    return make


def test_it_answers_and_says_what_it_is(worker: Worker, job: Callable[[bytes], Job]) -> None:
    assert worker.facts == ToyAnswers.facts
    assert worker.ask(job(b"12345")).content["score"] == 5
    assert worker.ask(job(b"N")) == (422, {"detail": "it is no picture"}, None)
    assert worker.memory() > 2**20
    assert worker.restarts == 0


def test_a_file_that_kills_the_process_is_refused_and_the_next_is_scored(
    worker: Worker, job: Callable[[bytes], Job]
) -> None:
    answer = worker.ask(job(b"D"))
    assert answer.status == 422
    assert "broke off" in answer.content["detail"]
    assert worker.ask(job(b"123")).content["score"] == 3
    assert worker.restarts == 1


def test_a_process_that_the_system_killed_between_two_uploads_costs_none(
    worker: Worker, job: Callable[[bytes], Job]
) -> None:
    assert worker._process is not None
    assert worker._process.pid is not None
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.join()
    assert worker.ask(job(b"123")).content["score"] == 3


def test_a_file_that_takes_too_long_is_given_up(worker: Worker, job: Callable[[bytes], Job]) -> None:
    worker._timeout = 0.2
    answer = worker.ask(job(b"H"))
    assert answer.status == 422
    assert "longer than 0.2 s" in answer.content["detail"]
    worker._timeout = 60
    assert worker.ask(job(b"123")).status == 200


def test_a_fault_of_ours_names_its_kind_and_nothing_of_the_file(worker: Worker, job: Callable[[bytes], Job]) -> None:
    answer = worker.ask(job(b"Ernst Mustermann"))
    assert answer.status == 500
    assert "ValueError" in answer.content["detail"]
    assert "Mustermann" not in answer.content["detail"]
    assert worker.restarts == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what a process takes")
def test_a_file_that_takes_more_memory_than_it_may_is_refused(worker: Worker, job: Callable[[bytes], Job]) -> None:
    answer = worker.ask(job(b"M"))
    assert answer.status == 422
    assert "memory" in answer.content["detail"]
    assert worker.restarts == 0
    assert worker.ask(job(b"123")).status == 200


@pytest.mark.parametrize(("opener", "message"), [(refusing, "not a run folder"), (failing, "ValueError: a fault")])
def test_what_cannot_be_opened_is_a_users_error(opener: Callable[[], ToyAnswers], message: str) -> None:
    worker = Worker(opener, timeout=60, memory=2**28)
    with pytest.raises(UserError, match=message):
        worker.start()
    assert worker.fault
    worker._opened = opened
    worker.start()
    assert worker.fault == ""
    worker.close()


def test_a_closed_worker_has_no_process(worker: Worker) -> None:
    assert worker._process is not None
    pid = worker._process.pid
    worker.close()
    assert worker.memory() == 0
    assert not psutil.pid_exists(pid)
