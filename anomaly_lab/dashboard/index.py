"""The index of the runs: an SQLite file beside them that holds what was read, and may be deleted at any time.

A run is read again when one of its files has another time or size. The run folders are the truth: an index that is
damaged, of another program or of another version of this code is made anew, and where none can be written it lies in
memory. Nothing in it is executed: values are texts and compressed JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from anomaly_lab.dashboard import runs
from anomaly_lab.dashboard.runs import Curve, Found, Read, Row
from anomaly_lab.experiment import trust

FILE = ".index.sqlite"
MARK = 0x414C6162  # application_id: "ALab"
PATIENCE = 20.0  # seconds to wait for another process that writes
BATCH = 200  # runs that are written at once, so that others need not wait
UNPACKED = 2**26  # bytes of a value at most
SCHEMA = (
    "CREATE TABLE code (hash TEXT)",
    "CREATE TABLE runs (path TEXT PRIMARY KEY, stamp TEXT, row BLOB, config BLOB, curve BLOB)",
    "CREATE TABLE computed (key TEXT PRIMARY KEY, value BLOB)",
)
Progress = Callable[[int, int], object]


class ForeignError(Exception):
    """The file is no index of this code."""


class Index:
    """What is known of the runs of a place.

    Args:
        place: the folder of the runs.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index = Index(Path(folder))
        ...     index.update(), index.rows
        (set(), {})
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.rows: dict[str, Row] = {}
        self._stamps: dict[str, str] = {}
        self._lock = threading.RLock()
        self._base = self._open()

    def update(self, progress: Progress = lambda done, of: None) -> set[str]:
        """Read what has changed, and return the paths of the rows that are other ones than before, or gone.

        Args:
            progress: is told how many of the changed runs have been read.

        Raises:
            UserError: the folder is gone.
        """
        found = runs.find(self.place)
        with self._lock:
            before, known = self.rows, self._known()
            self.rows = {path: row for path, row in known.items() if path in found}
            changed = [path for path, now in found.items() if self._stamps.get(path) != now.stamp]
            for start in range(0, len(changed), BATCH):
                batch = changed[start : start + BATCH]
                self._keep([(path, found[path], runs.read(self.place, path, found[path].held)) for path in batch])
                progress(start + len(batch), len(changed))
            self._forget(known.keys() - found.keys())
            for path, row in self.rows.items():
                if row.state in ("running", "stopped"):
                    self.rows[path] = row._replace(state=runs.state(found[path].held))
            return {path for path in {*before, *self.rows} if before.get(path) != self.rows.get(path)}

    def configs(self, paths: Sequence[str] | None = None) -> dict[str, dict[str, str]]:
        """Return the settings of runs, or of all, by path."""
        return {path: config for path, config in self._column("config", paths) if isinstance(config, dict)}

    def curves(self, paths: Sequence[str]) -> dict[str, Curve]:
        """Return the curves of runs by path."""
        return {path: curve for path, curve in self._column("curve", paths) if isinstance(curve, dict)}

    def stamp(self, path: str) -> str:
        """Return what the files of a run were like when it was read."""
        return self._stamps.get(path, "")

    def remembered(self, what: str, paths: Sequence[str], compute: Callable[[], Any]) -> Any:
        """Return what was computed of runs before, or compute it, if any of them has changed since.

        Args:
            what: names the computation.
            paths: of the runs.
            compute: returns something that JSON can hold.
        """
        told = json.dumps([what, [(path, self.stamp(path)) for path in paths]])
        key = hashlib.sha256(told.encode()).hexdigest()
        with self._lock:
            for (value,) in self._ask("SELECT value FROM computed WHERE key = ?", (key,)):
                with contextlib.suppress(ValueError, zlib.error, TypeError):
                    return _unpacked(value)
        value = compute()
        with self._lock:
            self._write("INSERT OR REPLACE INTO computed VALUES (?, ?)", [(key, _packed(value))])
        return value

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def _known(self) -> dict[str, Row]:
        """Read the rows of the index; what is no row is read anew from its run."""
        rows, self._stamps = {}, {}
        for path, stamp, row in self._ask("SELECT path, stamp, row FROM runs"):
            with contextlib.suppress(ValueError, TypeError, zlib.error):
                rows[path] = Row(*_unpacked(row))
                self._stamps[path] = stamp
        return rows

    def _keep(self, read: list[tuple[str, Found, Read]]) -> None:
        self.rows |= {path: of_run.row for path, _, of_run in read}
        self._stamps |= {path: found.stamp for path, found, _ in read}
        self._write(
            "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)",
            [(path, found.stamp, *map(_packed, of_run)) for path, found, of_run in read if path.isprintable()],
        )

    def _forget(self, gone: set[str]) -> None:
        for path in gone:
            self._stamps.pop(path, None)
        if gone:
            self._write("DELETE FROM runs WHERE path = ?", [(path,) for path in gone])

    def _column(self, name: str, paths: Sequence[str] | None = None) -> Iterator[tuple[str, Any]]:
        with self._lock:
            values = self._ask(f"SELECT path, {name} FROM runs")
            if paths is not None:
                wanted = {*paths}
                values = [(path, value) for path, value in values if path in wanted]
        for path, value in values:
            with contextlib.suppress(ValueError, TypeError, zlib.error):
                yield path, _unpacked(value)

    def _ask(self, question: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._base.execute(question, values).fetchall()
        except sqlite3.Error:
            self._in_memory()
            return []

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        try:
            with self._base:
                self._base.executemany(statement, rows)
        except sqlite3.Error:  # a full disk, or another process that does not end: go on without the file
            self._in_memory()
            with self._base:
                self._base.executemany(statement, rows)

    def _in_memory(self) -> None:
        """Go on with what is in memory; all runs are read again at the next update."""
        with contextlib.suppress(sqlite3.Error):
            self._base.close()
        self._base = _connected(":memory:")
        _make(self._base)

    def _open(self) -> sqlite3.Connection:
        path = self.place / FILE
        for _ in range(2):
            try:
                return _opened(path)
            except (sqlite3.DatabaseError, ForeignError, ValueError) as error:
                if isinstance(error, sqlite3.OperationalError) and _is_waiting(error):
                    break
                with contextlib.suppress(OSError):
                    for left in (path, path.with_name(f"{FILE}-journal")):
                        left.unlink(missing_ok=True)
        base = _connected(":memory:")
        _make(base)
        return base


def _opened(path: Path) -> sqlite3.Connection:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ForeignError
    base = _connected(str(path))
    try:
        base.execute("BEGIN IMMEDIATE")  # of two processes that find none, one makes it
        tables = [sql for (sql,) in base.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
        (mark,) = base.execute("PRAGMA application_id").fetchone()
        if not tables and mark == 0:
            _make(base)
        elif mark != MARK or sorted(tables) != sorted(SCHEMA) or not _is_ours(base):
            raise ForeignError
        base.commit()
    except BaseException:
        base.close()
        raise
    return base


def _is_ours(base: sqlite3.Connection) -> bool:
    return base.execute("SELECT hash FROM code").fetchall() == [(_code(),)]


def _connected(name: str) -> sqlite3.Connection:
    base = sqlite3.connect(name, timeout=PATIENCE, check_same_thread=False)
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "synchronous = OFF"):
        base.execute(f"PRAGMA {pragma}")
    return base


def _make(base: sqlite3.Connection) -> None:
    for table in SCHEMA:
        base.execute(table)
    base.execute(f"PRAGMA application_id = {MARK}")
    base.execute("INSERT INTO code VALUES (?)", (_code(),))
    base.commit()


def _is_waiting(error: sqlite3.OperationalError) -> bool:
    """Whether the file is fine, but cannot be used here: another process writes, the folder cannot be written."""
    return any(word in str(error) for word in ("locked", "readonly", "unable to open"))


@cache
def _code() -> str:
    """Hash the code that reads and computes what is kept."""
    package = Path(__file__).parents[1]
    rooms = ("dashboard", "metrics", "studies", "experiment", "callbacks")  # the latter two tell what repeats a run
    modules = sorted(path for room in rooms for path in package.glob(f"{room}/*.py"))
    trusted = " ".join(trust.packages()).encode()
    return hashlib.sha256(b"".join([trusted, *(path.read_bytes() for path in modules)])).hexdigest()


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, ensure_ascii=True).encode(), 1)


def _unpacked(value: Any) -> Any:
    if not isinstance(value, bytes):
        raise ValueError("no packed value")
    unpacking = zlib.decompressobj()
    text = unpacking.decompress(value, UNPACKED)
    if unpacking.unconsumed_tail:
        raise ValueError("too large")
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
