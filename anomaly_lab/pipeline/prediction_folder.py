"""The folder of a prediction. Nothing that a prediction did not put there is replaced, and a killed one can go on.

The folder holds `prediction.json`, by which it is known again: the run, what was asked, and, once finished, the list of
files and what white is in maps that are pictures. Until then the hidden folder `.unfinished` has a journal: every file
is entered before it is written, and after every group of scans how far the table has got. Going on means to cut the
table off there.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anomaly_lab.experiment import run_folder
from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import UserError

MARKER, TABLE, PAGE = "prediction.json", "scores.csv", "index.html"
_WORK, _JOURNAL, _LOCK = ".unfinished", "journal.jsonl", ".lock"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class PredictionFolder:
    r"""A prediction in the making; created by `opened`.

    Attributes:
        path: the folder.
        work: a folder for what is needed only until the prediction is finished.
        done: number of rows in the table from which the work goes on.

    Examples:
        >>> import tempfile
        >>> asked = {"run": {"id": "1f"}, "input": "new"}
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with opened(Path(parent) / "out", asked, overwrite=False) as folder:
        ...         folder.append("id,score\n")
        ...         folder.file("maps/a.png").write_bytes(b"PNG")
        ...         folder.append("a.png,0.5\n")
        ...         folder.note(rows=1)
        ...         folder.finish("<p>page</p>")
        ...     sorted(path.name for path in folder.path.iterdir())
        3
        ['.lock', 'index.html', 'maps', 'prediction.json', 'scores.csv']
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self.path, self.work, self._asked = path, path / _WORK, asked
        self.done, self._written, self._listed = 0, set[str](), set[str]()
        self._scales = dict[str, int]()
        self._table: io.BufferedRandom
        self._journal: io.BufferedRandom

    @property
    def is_blank(self) -> bool:
        """Whether nothing is in the table yet."""
        return self._table.tell() == 0

    def append(self, text: str) -> None:
        """Append to the table; readers see it at once."""
        self._table.write(text.encode())
        self._table.flush()

    def file(self, name: str, scale: int | None = None) -> Path:
        """Return the path at which to write a file of the result, and make its folder.

        Args:
            name: of the file, below the folder.
            scale: of a map that is a picture, the value that is white.

        Raises:
            UserError: a file that is not of this result lies there, or it was written already.
        """
        path = self.path / name
        if name in self._written or (os.path.lexists(path) and name not in self._listed):
            raise UserError(f"{path} is there already and would be replaced; rename one of the files")
        self._written.add(name)
        self._listed.add(name)
        if scale is not None:
            self._scales[name] = scale
        self._enter({"file": name} if scale is None else {"file": name, "scale": scale})
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def note(self, rows: int) -> None:
        """Note that the table is complete up to this row, with all files that belong to it."""
        os.fsync(self._table.fileno())
        self._enter({"rows": rows, "bytes": self._table.tell()})
        os.fsync(self._journal.fileno())

    def finish(self, page: str) -> None:
        """Write the page and mark the result as finished."""
        self._put(self.file(PAGE), page)
        files = [name for name in sorted({*self._listed, TABLE}) if os.path.lexists(self.path / name)]
        self._mark(
            finished=True, files=files, scales={name: self._scales[name] for name in files if name in self._scales}
        )
        self._close()
        shutil.rmtree(self.work, ignore_errors=True)

    def begin(self) -> None:
        """Begin anew in a folder that has no result."""
        shutil.rmtree(self.work, ignore_errors=True)  # of a process that was killed before it could write the marker
        self.work.mkdir()
        if os.path.lexists(self.path / TABLE):
            raise UserError(f"{self.path / TABLE} is there already and would be replaced; choose another folder")
        self._mark(finished=False, files=[])
        self._open(0, 0)

    def go_on(self) -> None:
        """Go on where a killed process stopped."""
        self.work.mkdir(exist_ok=True)
        entries = _entries(self.work / _JOURNAL)
        noted = [place for place, entry in enumerate(entries) if "rows" in entry]
        if any(entry.keys() == {"length"} for entry in entries):
            raise UserError(f"{self.work / _JOURNAL} is damaged; begin anew with --overwrite (OVERWRITE=1)")
        last = entries[noted[-1]] if noted else {"rows": 0, "bytes": 0}
        table = self.path / TABLE
        if last["bytes"] > (table.stat().st_size if table.exists() else 0):
            raise UserError(f"{table}: rows are missing that were written; begin anew with --overwrite (OVERWRITE=1)")
        whole = noted[-1] if noted else 0
        self.done, self._listed = last["rows"], {entry["file"] for entry in entries if "file" in entry}
        self._scales = {entry["file"]: entry["scale"] for entry in entries if "scale" in entry}
        self._written = {entry["file"] for entry in entries[:whole] if "file" in entry}
        self._open(last["bytes"], sum(entry["length"] for entry in entries))

    def _open(self, size: int, journal: int) -> None:
        self._table, self._journal = _cut_off(self.path / TABLE, size), _cut_off(self.work / _JOURNAL, journal)

    def _close(self) -> None:
        for name in ("_table", "_journal"):
            if file := getattr(self, name, None):
                with contextlib.suppress(OSError):  # what failed before says more
                    file.close()

    def _enter(self, entry: Mapping[str, Any]) -> None:
        self._journal.write(json.dumps(entry).encode() + b"\n")
        self._journal.flush()

    def _mark(self, *, finished: bool, files: Sequence[str], scales: Mapping[str, int] | None = None) -> None:
        facts = {**self._asked, "finished": finished, "files": files, "map_scales": scales or {}}
        self._put(self.path / MARKER, json.dumps(facts, indent=1) + "\n")

    def _put(self, path: Path, text: str) -> None:
        """Write a file whole or not at all."""
        partial = self.work / path.name
        with partial.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def place_for(run: Path, inputs: Mapping[str, Path], out: str | None) -> Path:
    """Return the folder for the result of a prediction.

    Args:
        run: the run folder.
        inputs: what is read, by the name that the user knows it by; the first names the folder.
        out: the folder that was asked for, which is not made here; None to make a new one,
            `<run>/predictions/<name>-<time>`.

    Raises:
        UserError: the folder is or holds something that is read, lies inside of it, or in the run folder elsewhere than
            in `predictions`.

    Examples:
        >>> place_for(Path("runs/a"), {"INPUT": Path("new")}, "new/out")
        Traceback (most recent call last):
        anomaly_lab.types.UserError: new/out: the results would lie in new (INPUT); choose another folder with --out...
    """
    source = next(iter(inputs.values())).resolve()
    stem = f"{source.name or 'files'}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    place = run / "predictions" / stem if out is None else Path(out)
    own, home = place.resolve(), run.resolve()
    remedy = "choose another folder with --out (OUT=…)"
    for name, given in inputs.items():
        other = given.resolve()
        if other == own or own in other.parents:
            raise UserError(f"{place}: the results would replace {given} ({name}); {remedy}")
        if other in own.parents:
            raise UserError(f"{place}: the results would lie in {given} ({name}); {remedy}")
    if own == home or own in home.parents or (home in own.parents and home / "predictions" not in own.parents):
        raise UserError(f"{place}: the results would lie among the files of the run {run}; {remedy}")
    return _new(place) if out is None else place


@contextlib.contextmanager
def opened(place: Path, asked: Mapping[str, Any], overwrite: bool) -> Iterator[PredictionFolder]:
    """Open the folder of a prediction: a new or empty one, or an unfinished one that the same command has left.

    Args:
        place: the folder.
        asked: what identifies the command, JSON; `asked["run"]["id"]` is that of the run.
        overwrite: remove a former result of the run, that is, the files that it lists and nothing else.

    Raises:
        UserError: the folder holds something else, or another process is at work there; the disk is full or not
            writable. What was written remains, and the same command goes on.
    """
    folder = PredictionFolder(place, asked)
    try:
        _refuse_foreign(place, asked, overwrite)  # before a lock file is put into somebody's folder
        place.mkdir(parents=True, exist_ok=True)
        with run_folder.locked(place):
            former = _refuse_foreign(place, asked, overwrite)
            if former and not overwrite:
                folder.go_on()
            else:
                _remove(place, former)
                folder.begin()
            try:
                yield folder
            finally:
                folder._close()
    except BrokenPipeError:  # of the console
        raise
    except OSError as error:
        raise _unwritable(place, error) from error


def _new(place: Path) -> Path:
    """Make a folder that nobody else has: another process of the same second makes another one."""
    for number in itertools.count(1):
        path = place if number == 1 else place.with_name(f"{place.name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _unwritable(path, error) from error
        return path
    raise AssertionError


def _unwritable(place: Path, error: OSError) -> UserError:
    full = error.errno in _FULL
    fault = "the disk is full" if full else f"it cannot be written ({error.strerror or error})"
    remedy = "free some space" if full else "make it writable, or choose another folder with --out (OUT=…),"
    return UserError(f"{place}: {fault}; {remedy} and give the same command again; with --out {place} it goes on")


def _refuse_foreign(place: Path, asked: Mapping[str, Any], overwrite: bool) -> dict[str, Any]:
    """Return the marker of a former result that may be continued or replaced; empty for a new or empty folder."""
    another = "choose another folder with --out (OUT=…)"
    if os.path.lexists(place) and not place.is_dir():
        raise UserError(f"{place} is no folder; {another}")
    if not place.exists() or not {path.name for path in place.iterdir()} - {_LOCK, _WORK}:
        return {}
    try:
        former = json.loads(regular(place / MARKER).read_text(encoding="utf-8"))
        run = former["run"]["id"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{place} is not empty and holds no result of this run; {another}") from None
    if run != asked["run"]["id"]:
        raise UserError(f"{place} holds results of another run; {another}")
    anew = "begin anew with --overwrite (OVERWRITE=1)"
    if former.get("finished") and not overwrite:
        shutil.rmtree(place / _WORK, ignore_errors=True)  # of a process that was killed at its very end
        raise UserError(f"{place} holds a finished result; {another} or {anew}")
    same = all(former.get(key) == value for key, value in asked.items())
    if not same and not overwrite:
        changed = ", ".join(key for key, value in asked.items() if former.get(key) != value)
        raise UserError(
            f"{place} holds an unfinished result of another command ({changed}); give that one, {another} or {anew}"
        )
    return dict(former)


def _remove(place: Path, former: Mapping[str, Any]) -> None:
    """Remove the files that a former result lists, and the folders that are empty then."""
    files = former.get("files")
    listed = {*(files if isinstance(files, list) else []), *([MARKER, TABLE] if former else [])}
    listed |= {entry["file"] for entry in _entries(place / _WORK / _JOURNAL) if "file" in entry}
    folders = set[Path]()
    for name in sorted(listed):
        path = place / name
        inside = path.parent.resolve().is_relative_to(place.resolve())
        if inside and os.path.lexists(path):
            with contextlib.suppress(OSError):  # what remains is not replaced, either
                path.unlink()
            folders |= {folder for folder in path.parents if folder.is_relative_to(place) and folder != place}
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):  # somebody else's files are in it
            folder.rmdir()


def _entries(journal: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a journal, each with its length in bytes; of a damaged one nothing else."""
    lines = journal.read_bytes().splitlines(keepends=True) if journal.is_file() else []
    return [_entry(line) | {"length": len(line)} for line in lines if line.endswith(b"\n")]


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _cut_off(path: Path, size: int) -> io.BufferedRandom:
    """Truncate a file to `size` bytes and open it for appending."""
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file
