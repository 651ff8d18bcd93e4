"""A prediction removes and replaces only what a former one of its run lists, and goes on after a kill."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from anomaly_lab.pipeline.prediction_folder import MARKER, PredictionFolder, opened, place_for
from anomaly_lab.types import UserError

ASKED: dict[str, Any] = {"run": {"id": "1f"}, "input": "/new", "anyway": False}


def write(folder: PredictionFolder, rows: range = range(3)) -> None:
    """A row and a map for each case, as far as it is asked for."""
    if folder.is_blank:
        folder.append("id,score\n")
    for row in rows:
        folder.file(f"maps/{row}/a.png").write_text(f"map {row}")
        folder.append(f"{row},0.5\n")
        folder.note(rows=row + 1)


def finished(place: Path, asked: dict[str, Any] = ASKED, overwrite: bool = False, rows: range = range(3)) -> None:
    with opened(place, asked, overwrite) as folder:
        write(folder, range(folder.done, rows.stop))
        folder.finish("page")


def broken_off(place: Path, rows: range, error: BaseException) -> None:
    """Cases that are whole, and one that is not noted."""
    with opened(place, ASKED, overwrite=False) as folder:
        write(folder, rows)
        folder.file("maps/9/a.png").write_text("of a case that is not noted")
        folder.append("torn")
        raise error


def content(place: Path) -> dict[str, str]:
    return {path.relative_to(place).as_posix(): path.read_text() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["home", "file", "other run", "damaged", "almost"])
def test_what_is_no_result_of_the_run_is_left_alone(tmp_path: Path, name: str, overwrite: bool) -> None:
    place = tmp_path / "out"
    if name == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "thesis.txt").write_text("mine")
    if name == "other run":
        (place / MARKER).write_text(json.dumps({"run": {"id": "2e"}, "finished": True, "files": ["thesis.txt"]}))
    if name == "damaged":
        (place / MARKER).write_text('{"run": ')
    if name == "almost":
        (place / MARKER).write_text('["run"]')
    before = [sorted(content(place).items()) if place.is_dir() else place.read_text(), sorted(tmp_path.rglob("*"))]
    with pytest.raises(UserError, match=r"choose another folder"), opened(place, ASKED, overwrite):
        raise AssertionError
    after = [sorted(content(place).items()) if place.is_dir() else place.read_text(), sorted(tmp_path.rglob("*"))]
    assert after == before


def test_overwriting_removes_what_the_former_result_lists_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "out"
    finished(place, rows=range(9))
    (place / "maps" / "7" / "my notes.txt").write_text("mine")
    (place / "remarks.txt").write_text("mine")
    with pytest.raises(UserError, match="finished result"):
        finished(place)
    finished(place, {**ASKED, "input": "/other"}, overwrite=True, rows=range(2))
    assert set(content(place)) == {
        *(".lock", MARKER, "index.html", "scores.csv", "remarks.txt", "maps/7/my notes.txt"),
        *("maps/0/a.png", "maps/1/a.png"),
    }
    assert not (place / "maps" / "3").exists()
    assert len((place / "scores.csv").read_text().splitlines()) == 3


def test_a_list_that_leads_elsewhere_removes_nothing_there(tmp_path: Path) -> None:
    place, victim = tmp_path / "out", tmp_path / "victim"
    finished(place)
    victim.mkdir()
    (victim / "a.png").write_text("mine")
    (place / "link").symlink_to(victim)
    facts = json.loads((place / MARKER).read_text())
    facts["files"] += ["../victim/a.png", "link/a.png", str(victim / "a.png"), ".", ""]
    (place / MARKER).write_text(json.dumps(facts))
    finished(place, overwrite=True)
    assert (victim / "a.png").read_text() == "mine"


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "out"
    finished(place)
    (place / "maps" / "5").mkdir()
    (place / "maps" / "5" / "a.png").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        finished(place, overwrite=True, rows=range(9))
    assert (place / "maps" / "5" / "a.png").read_text() == "mine"
    with opened(tmp_path / "twice", ASKED, overwrite=False) as folder:
        folder.file("a.png")
        with pytest.raises(UserError, match="is there already"):
            folder.file("a.png")


@pytest.mark.parametrize("stopped_after", range(4))
def test_a_killed_prediction_goes_on_where_its_journal_ends(tmp_path: Path, stopped_after: int) -> None:
    finished(tmp_path / "straight")
    place = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        broken_off(place, range(stopped_after), KeyboardInterrupt())
    with (place / ".unfinished" / "journal.jsonl").open("a") as journal:
        journal.write('{"rows": 9')
    (place / "maps" / "9" / "a.png").unlink()
    (place / "maps" / "9").rmdir()
    with pytest.raises(UserError, match=r"another command \(anyway\)"):
        finished(place, {**ASKED, "anyway": True})
    with opened(place, ASKED, overwrite=False) as folder:
        assert folder.done == stopped_after
    finished(place)
    assert content(place) == content(tmp_path / "straight")


def test_killed_at_the_very_end_it_is_finished_and_leaves_nothing(tmp_path: Path) -> None:
    finished(place := tmp_path / "out")
    whole = content(place)
    (place / ".unfinished").mkdir()
    (place / ".unfinished" / "journal.jsonl").touch()
    with pytest.raises(UserError, match="holds a finished result"):
        finished(place)
    assert content(place) == whole
    assert not (place / ".unfinished").exists()


def test_rows_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        broken_off(tmp_path / "out", range(3), KeyboardInterrupt())
    (tmp_path / "out" / "scores.csv").write_text("id,score\n")
    with pytest.raises(UserError, match="rows are missing"):
        finished(tmp_path / "out")
    finished(tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("line", [b"\x00\x00\n", b'{"rows": 2, "by\n', b"7\n"])
def test_a_damaged_journal_is_named_and_can_be_overwritten(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        broken_off(tmp_path / "out", range(3), KeyboardInterrupt())
    journal = tmp_path / "out" / ".unfinished" / "journal.jsonl"
    journal.write_bytes(line + journal.read_bytes())
    with pytest.raises(UserError, match=r"journal\.jsonl is damaged; begin anew with --overwrite"):
        finished(tmp_path / "out")
    finished(tmp_path / "out", overwrite=True)


def _refused(place: Path, answer: Any) -> None:
    try:
        finished(place)
    except UserError as error:
        answer.put(str(error))


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    with opened(tmp_path / "out", ASKED, overwrite=False) as folder:
        other = context.Process(target=_refused, args=(tmp_path / "out", answer))
        other.start()
        assert "in use by another process" in answer.get(timeout=120)
        other.join()
        write(folder)
        folder.finish("page")
    run = tmp_path / "run"
    places = [place_for(run, {"INPUT": tmp_path / "new"}, None) for _ in range(3)]
    assert len(set(places)) == 3
    assert all(place.parent == run / "predictions" and place.name.startswith("new-") for place in places)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("new", "would replace"),
        ("new/out", "would lie in"),
        (".", "would replace"),
        ("masks/out", "would lie in"),
        ("runs/a", "among the files of the run"),
        ("runs", "among the files of the run"),
        ("runs/a/checkpoints", "among the files of the run"),
        ("runs/a/predictions", "among the files of the run"),
        ("link", "would replace"),
        ("link/../new/x", "would lie in"),
    ],
)
def test_results_lie_apart_from_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("new", "masks", "runs/a/checkpoints"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "new")
    inputs = {"INPUT": Path("new"), "MASKS": Path("masks")}
    with pytest.raises(UserError, match=message):
        place_for(Path("runs/a"), inputs, out)
    assert place_for(Path("runs/a"), inputs, "runs/a/predictions/x") == Path("runs/a/predictions/x")
    with pytest.raises(UserError, match="would lie in"):
        place_for(Path("runs/a"), {"INPUT": Path("runs")}, None)
    assert not (tmp_path / "runs/a/predictions").exists()


def test_a_disk_that_is_full_is_named_and_the_work_goes_on_later(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with pytest.raises(UserError, match="the disk is full; free some space") as told:
        broken_off(place, range(2), OSError(28, "No space left on device"))
    assert "store" not in str(told.value)
    with opened(place, ASKED, overwrite=False) as folder:
        assert folder.done == 2


def test_a_name_that_is_too_long_does_not_stop_the_end(tmp_path: Path) -> None:
    for overwrite in (False, True):
        with opened(tmp_path / "out", ASKED, overwrite) as folder:
            with pytest.raises(OSError, match="too long"):
                folder.file(f"maps/{'n' * 300}.png").touch()
            write(folder)
            folder.finish("page")
    assert not any("nnn" in name for name in json.loads((tmp_path / "out" / MARKER).read_text())["files"])
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no folder"):
        finished(tmp_path / "link")
