"""Processes of one run wait for each other, and fail as one; with real ones in e2e/test_processes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from anomaly_lab.pipeline import processes as module
from anomaly_lab.pipeline import run_commands
from anomaly_lab.pipeline.processes import Processes, together
from anomaly_lab.types import FailedElsewhereError, Stopped, UserError


def test_one_process_has_nobody_to_wait_for() -> None:
    done = []
    with together() as processes:
        processes.in_turn(lambda: done.append("work"))
        processes.refuse_differences("nothing", object())
        assert processes.from_first("value") == "value"
    assert done == ["work"]


def test_an_error_of_the_only_process_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), together():
        _ = 1 / 0


@pytest.mark.parametrize("rank", [0, 1])
def test_after_a_training_in_several_processes_the_work_of_one_is_refused(monkeypatch, rank: int) -> None:
    """A script that trains with devices=2 is two scripts from then on, both of which would predict."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    with pytest.raises(FailedElsewhereError if rank else UserError, match=None if rank else "in a script of its own"):
        run_commands.refuse_several("predict")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> tuple[Processes, Processes]:
    """Two processes that have met, as threads of one."""
    monkeypatch.setattr(module, "_ignore_signals", lambda: None)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    store, both = torch.distributed.HashStore(), (Processes(), Processes())
    for rank, process in enumerate(both):
        process.rank, process.size, process._local_rank, process._store = rank, 2, rank, store
    return both


def test_the_first_ones_value_is_everybodys_and_work_is_done_in_turn(two: tuple[Processes, Processes]) -> None:
    done = []

    def work(process: Processes) -> object:
        process.in_turn(lambda: done.append(process.rank))
        return process.from_first(Path(str(process.rank)))

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(work, reversed(two))) == [Path("0")] * 2
    assert done == [0, 1]


def test_other_data_are_refused_in_the_process_that_has_them(two: tuple[Processes, Processes]) -> None:
    with ThreadPoolExecutor() as pool:
        said = [pool.submit(process.refuse_differences, "the data", process.rank) for process in two]
        with pytest.raises(UserError, match=r"the data of process 1 on .* differs from that of the first"):
            said[1].result()
        two[1]._tell(UserError("differs"))
        with pytest.raises(FailedElsewhereError):
            said[0].result()


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (UserError("no"), FailedElsewhereError, 2),
        (ZeroDivisionError(), FailedElsewhereError, 1),
        (Stopped(15), Stopped, 143),
    ],
)
def test_the_first_error_is_told_and_ends_those_that_wait(
    two: tuple[Processes, Processes], error: BaseException, kind: type, status: int
) -> None:
    first, second = two
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(first.wait)
        assert second._tell(error) is None  # nobody has said anything before
        with pytest.raises(kind) as ended:
            waiting.result()
    assert getattr(ended.value, "status", None) == status or getattr(ended.value, "code", None) == status


def test_a_second_error_is_not_said(two: tuple[Processes, Processes]) -> None:
    with ThreadPoolExecutor() as pool:
        told = list(pool.map(Processes._tell, two, (UserError("one"), ZeroDivisionError())))
    assert sorted(told, key=str) in ([2, None], [1, None])


def test_a_signal_that_follows_from_an_error_is_that_error(two: tuple[Processes, Processes]) -> None:
    """A launcher ends the others where one has failed; a job of SLURM must not be requeued for it."""
    first, second = two
    assert second._tell(UserError("no")) is None
    assert first._tell(Stopped(15)) == 2
    assert isinstance(module._told(2), FailedElsewhereError)
