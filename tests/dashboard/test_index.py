import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from study_runs import judged, write_run

from anomaly_lab.dashboard import index as module
from anomaly_lab.dashboard import runs
from anomaly_lab.dashboard.index import FILE, Index


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the runs that are read, in order."""
    seen: list[str] = []
    real = runs.read

    def read(place: Path, path: str, held: bool = False) -> runs.Read:
        seen.append(path)
        return real(place, path, held)

    monkeypatch.setattr(runs, "read", read)
    return seen


def updated(place: Path) -> Index:
    index = Index(place)
    index.update()
    return index


def test_only_what_has_changed_is_read_again(place: Path, reads: list[str]):
    index = updated(place)
    assert len(reads) == len(index.rows) == 7
    assert index.update() == set()
    assert Index(place).update() == {*index.rows}
    assert len(reads) == 7
    (place / "vae_set" / "0" / "report.html").write_text("new")
    shutil.rmtree(place / "vae_set" / "wide")
    assert index.update() == {"vae_set/0", "vae_set/wide"}
    assert reads[7:] == ["vae_set/0"]
    assert index.rows["vae_set/0"].report
    assert len(Index(place)._ask("SELECT path FROM runs")) == 6


def test_a_run_that_goes_on_is_another_row(place: Path):
    index = updated(place)
    with (place / "pca_set" / "stopped" / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 80, "train/loss": 0.1}\n')
    assert index.update() == {"pca_set/stopped"}
    assert index.rows["pca_set/stopped"].done == 80


def foreign(path: Path) -> None:
    path.unlink(missing_ok=True)
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE holidays (day TEXT)")
    base.commit()
    base.close()


def of_other_code(path: Path) -> None:
    base = sqlite3.connect(path)
    base.execute("UPDATE code SET hash = 'older'")
    base.commit()
    base.close()


def with_a_trigger(path: Path) -> None:
    base = sqlite3.connect(path)
    base.execute("CREATE TRIGGER t AFTER DELETE ON runs BEGIN DELETE FROM computed; END")
    base.commit()
    base.close()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def spoilt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)
    path.write_bytes(content)


def other_values(path: Path) -> None:
    base = sqlite3.connect(path)
    base.execute("UPDATE runs SET row = 'text', config = x'00', curve = NULL")
    base.commit()
    base.close()


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent.parent / "elsewhere.sqlite")


@pytest.mark.parametrize("damage", [
    foreign, of_other_code, with_a_trigger, cut, spoilt, other_values, linked,
    lambda path: path.write_text("no data base"), lambda path: path.write_bytes(b""),
])  # fmt: skip
def test_an_index_that_is_not_ours_or_is_damaged_is_made_anew(place: Path, damage: Callable[[Path], object]):
    before = updated(place).rows
    damage(place / FILE)
    index = updated(place)
    index.update()
    assert index.rows == before
    assert len(index.configs()) == len(index.curves([*before])) == 7
    assert not (place.parent / "elsewhere.sqlite").exists()
    again = updated(place)
    assert again.rows == before


def test_without_a_place_for_the_file_it_lies_in_memory(place: Path, monkeypatch: pytest.MonkeyPatch):
    (place / FILE).mkdir()  # as root, permissions do not stop us
    index = updated(place)
    assert len(index.rows) == 7
    assert index.update() == set()
    assert index.remembered("x", ["vae_set/0"], lambda: [1]) == [1]
    assert (place / FILE).is_dir()


def test_a_disk_that_is_full_in_between_costs_the_file_not_the_answer(place: Path):
    index = updated(place)
    index._base.execute("PRAGMA query_only = ON")
    (place / "vae_set" / "0" / "report.html").write_text("new")
    assert "vae_set/0" in index.update()
    assert index.rows["vae_set/0"].report
    index.update()
    assert len(index.configs()) == 7


def test_computed_once_until_a_run_changes(place: Path):
    index, calls = updated(place), []

    def compute() -> int:
        calls.append(1)
        return len(calls)

    paths = ["vae_set/0", "vae_set/1"]
    assert [index.remembered("x", paths, compute) for _ in range(3)] == [1, 1, 1]
    assert index.remembered("y", paths, compute) == 2
    judged(place / "vae_set" / "1")
    os.utime(place / "vae_set" / "1" / "metrics.json", (1, 1))
    index.update()
    assert index.remembered("x", paths, compute) == 3
    assert updated(place).remembered("x", paths, compute) == 3


def test_two_processes_at_once_both_have_it_right(place: Path):
    for i in range(30):
        write_run(place / "many" / str(i), 1.0, i)
        (place / "many" / str(i) / "config.yaml").write_text("name: x")
    script = "import sys, pathlib; from anomaly_lab.dashboard.index import Index; i = Index(pathlib.Path(sys.argv[1]));"
    script += "i.update(); print(len(i.rows), len(i.configs()))"
    words = [sys.executable, "-c", script, str(place)]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].split() for process in started] == [["37", "37"]] * 2
    assert len(updated(place).rows) == 37


def test_threads_may_ask_at_once(place: Path):
    index, failures = updated(place), []

    def ask() -> None:
        try:
            for _ in range(20):
                index.update()
                index.configs()
                index.remembered("x", ["vae_set/0"], lambda: 1)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_value_that_unpacks_to_too_much_is_refused():
    import zlib

    bomb = zlib.compress(b" " * (module.UNPACKED + 10))
    with pytest.raises(ValueError, match="too large"):
        module._unpacked(bomb)
