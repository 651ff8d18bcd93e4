"""Locks hold, also where the file system has none."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from anomaly_lab.experiment import locks, run_folder
from anomaly_lab.types import UserError

WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@pytest.fixture(params=[None, *WITHOUT])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """One with locks, and those that answer with an error."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(request.param, "no locks")

    locks._warn.cache_clear()
    if request.param is not None:
        monkeypatch.setattr(fcntl, "flock", flock)
    return request.param


def test_one_holds_it_and_then_the_next(file_system: int | None, tmp_path: Path, capfd) -> None:
    path = tmp_path / ".lock"
    for _ in range(2):
        with locks.lock(path):
            with pytest.raises(Timeout), locks.lock(path, wait=False):
                pass
            assert locks.substitute(path).exists() == (file_system is not None)
        assert not locks.substitute(path).exists()
    assert capfd.readouterr().err.count("this file system has no locks") == (file_system is not None)


def test_a_run_in_use_is_refused_with_the_file_to_delete(file_system: int | None, tmp_path: Path) -> None:
    with run_folder.locked(tmp_path):
        with pytest.raises(UserError, match="in use by another process") as refused, run_folder.locked(tmp_path):
            pass
        assert (".lock.held" in str(refused.value)) == (file_system is not None)


@pytest.mark.parametrize("file_system", [errno.ENOLCK], indirect=True)
def test_what_a_killed_process_left_is_no_lock(file_system: int, tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    killed = (
        "import sys, os; from filelock import SoftFileLock; held = SoftFileLock(sys.argv[1]); held.acquire(); "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", killed, str(locks.substitute(path))], check=False)
    assert locks.substitute(path).exists()
    with locks.lock(path):
        pass
