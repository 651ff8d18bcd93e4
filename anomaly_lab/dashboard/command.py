"""The commands `runs` and `dashboard`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from anomaly_lab.dashboard import page
from anomaly_lab.dashboard.index import Index
from anomaly_lab.dashboard.server import PORT, Board, Server
from anomaly_lab.experiment.schema import did_you_mean
from anomaly_lab.types import UserError


class Asked(NamedTuple):
    """What the words of a command say.

    Attributes:
        runs: folder of the run folders.
        port: of the server.
    """

    runs: Path = Path("runs")
    port: int = PORT

    @classmethod
    def of(cls, words: Sequence[str], known: Sequence[str]) -> Asked:
        """Read words `key=value`.

        Raises:
            UserError: a key is not among the known ones, or the port is no number.

        Examples:
            >>> Asked.of(["runs=here"], ["runs"]).runs
            PosixPath('here')
            >>> Asked.of(["run=here"], ["runs"])
            Traceback (most recent call last):
                ...
            anomaly_lab.types.UserError: run=here: there is no such setting here. Did you mean: 'runs'?
        """
        asked = cls()
        for word in words:
            key, _, value = word.partition("=")
            if key not in known or not value:
                raise UserError(f"{word}: there is no such setting here.{did_you_mean(key, known)}")
            if key == "port":
                if not (value.isdecimal() and value.isascii() and int(value) < 2**16):
                    raise UserError(f"{word}: takes a number below {2**16}")
                asked = asked._replace(port=int(value))
            else:
                asked = asked._replace(runs=Path(value).expanduser())  # a shell leaves `runs=~/x` alone
        return asked


def write(words: Sequence[str]) -> None:
    """Write the page of all runs beside them.

    Args:
        words: `runs=folder`.

    Raises:
        UserError: there is no such folder, or it cannot be written.
    """
    asked = Asked.of(words, ["runs"])
    begun = time.monotonic()
    index = Index(asked.runs)
    with _bar() as bar:
        index.update(lambda done, of: bar("runs", done, of))
        path = page.write(index, bar)
    bad = sum(row.state == "unreadable" for row in index.rows.values())
    said = f", {bad} of them unreadable" if bad else ""
    print(f"{path}: {len(index.rows)} runs{said}, in {time.monotonic() - begun:.1f} s")


def serve(words: Sequence[str]) -> None:
    """Serve the page of all runs on this machine until it is interrupted.

    Args:
        words: `runs=folder`, `port=number`.

    Raises:
        UserError: there is no such folder, or the port is taken.
    """
    asked = Asked.of(words, ["runs", "port"])
    with _bar() as bar:
        board = Board(asked.runs, lambda done, of: bar("runs", done, of))
    with Server(board, asked.port) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"{server.address} shows {len(board.index.rows)} runs to this machine; Ctrl-C ends it", flush=True)
        server.serve_forever()


@contextlib.contextmanager
def _bar() -> Iterator[_Bar]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Bar(progress)


class _Bar:
    """A bar for each thing that is done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, int] = {}

    def __call__(self, what: str, done: int, of: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=of)
        self._progress.update(self._progress.tasks[self._tasks[what]].id, completed=done, total=of)
