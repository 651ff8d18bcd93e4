"""Serve the page on this machine: it follows the runs, and compares any of them.

The server answers this machine alone (127.0.0.1), reads and never writes but for the index, and knows three things:
the page, what the page asks for, and files of run folders that are reports or pictures. A request under another host
name is refused, so that a page from elsewhere cannot have its name lead here (DNS rebinding). A report is shown in an
origin of its own without network: what somebody sent must not read what else is here.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

from anomaly_lab.dashboard import compare, page
from anomaly_lab.dashboard.index import Index, Progress
from anomaly_lab.experiment.regular import regular
from anomaly_lab.experiment.run_folder import no_link
from anomaly_lab.types import UserError

HERE = "127.0.0.1"
PORT = 8765
PAUSE = 2.0  # seconds between two looks at the run folders, whoever asks
SHARE = 10  # or as many times as long as a look takes, so that thousands of runs do not keep a core busy
TYPES = {".html": "text/html; charset=utf-8", ".png": "image/png", ".jpg": "image/jpeg"}
POLICIES = {  # beside the page's own
    "page": "frame-ancestors 'none'",
    "report": "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'",
    "other": "default-src 'none'; sandbox; frame-ancestors 'none'",
}


class Board:
    """What the server says of the runs of a place; looks at them again when it is asked.

    Args:
        place: the folder of the runs.
        progress: is told how many runs have been read at first.

    Raises:
        UserError: there is no such folder.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Board(Path(folder)).changes(0)["rows"]
        []
    """

    def __init__(self, place: Path, progress: Progress = lambda done, of: None) -> None:
        self.index = Index(place)
        self._lock = threading.RLock()
        self._begun = self.version = time.time_ns() // 1_000_000  # so that a page of a former server gets everything
        self._changed: dict[str, int] = dict.fromkeys(self.index.update(progress), self.version)
        self._next = time.monotonic() + PAUSE
        self._page: tuple[int, str] = (0, "")

    def look(self) -> None:
        """Look at the run folders, unless that was just done; one that is gone for a moment changes nothing."""
        with self._lock:
            begun = time.monotonic()
            if begun < self._next:
                return
            try:
                changed = self.index.update()
            except (UserError, OSError):
                return
            finally:
                ended = time.monotonic()
                self._next = ended + max(PAUSE, SHARE * (ended - begun)) if PAUSE else ended
            if changed:
                self.version += 1
                self._changed |= dict.fromkeys(changed, self.version)

    def html(self) -> str:
        """Return the page as it is now."""
        with self._lock:
            self.look()
            if self._page[0] != self.version:
                self._page = self.version, page.render(self.index, compare.groups(self.index), None, self.version)
            return self._page[1]

    def changes(self, since: int) -> dict[str, Any]:
        """Return the rows that are other ones than at a version, and the groups if one of these runs is finished."""
        with self._lock:
            self.look()
            paths = [path for path, version in self._changed.items() if version > since or since < self._begun]
            rows = [self.index.rows[path] for path in paths if path in self.index.rows]
            told: dict[str, Any] = {
                "version": self.version,
                "whole": since < self._begun,
                "rows": [page.plain_row(row) for row in rows],
                "gone": [path for path in paths if path not in self.index.rows],
            }
            if any(row.state == "finished" for row in rows):
                told |= page.plain_groups(compare.groups(self.index))
            return told

    def compared(self, paths: list[str]) -> dict[str, Any] | None:
        """Return settings, curves, tests and pictures of runs; None if one is unknown, or there are too many."""
        with self._lock:
            self.look()
            if not paths or len(paths) > compare.MOST or not self.index.rows.keys() >= {*paths}:
                return None
            configs = self.index.configs(paths)
            return {
                "configs": configs,
                "curves": self.index.curves(paths),
                "tests": [list(test) for test in compare.tests(self.index, paths)],
                "galleries": compare.galleries(self.index, paths),
            }

    def file(self, address: str) -> Path | None:
        """Return the file of a run folder at an address; None if there is none, or none that is shown.

        Args:
            address: path below the runs, with slashes, decoded.
        """
        parts = address.split("/")
        if any(not part or part.startswith(".") or "\0" in part or "\\" in part for part in parts):
            return None
        run = next((run for i in range(1, len(parts)) if (run := "/".join(parts[:i])) in self.index.rows), None)
        path = self.index.place / address
        if run is None or path.suffix not in TYPES:
            return None
        try:
            known = regular(path).resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return known if known.is_relative_to((self.index.place / run).resolve()) else None


class Server(ThreadingHTTPServer):
    """The server of a board.

    Args:
        board: what it says.
        port: 0 for any that is free.

    Raises:
        UserError: the port is taken.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Server(Board(Path(folder)), 0) as server:
        ...     server.address.rpartition(":")[0]
        'http://127.0.0.1'
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, board: Board, port: int = PORT) -> None:
        self.board = board
        try:
            super().__init__((HERE, port), _Answer)
        except OSError as error:
            raise UserError(f"port {port} cannot be used: {error.strerror}; choose another one: port=…") from error

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://{HERE}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""


class _Answer(BaseHTTPRequestHandler):
    server: Server
    server_version = "anomaly_lab"
    sys_version = ""
    timeout = 30  # seconds that a silent client may hold a thread

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        host = (self.headers.get("Host") or "").lower()
        if host not in {f"{name}:{self.server.server_port}" for name in (HERE, "localhost")}:
            return self._say(HTTPStatus.MISDIRECTED_REQUEST, f"this server answers at {self.server.address} only")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and asked.path.startswith(
            "/.api/"
        ):
            return self._say(HTTPStatus.FORBIDDEN, "asked by another page")
        try:
            address = unquote(asked.path, errors="strict").removeprefix("/")
            words = parse_qs(asked.query, errors="strict", max_num_fields=100)
        except ValueError:
            return self._say(HTTPStatus.BAD_REQUEST, "the address is no text")
        board = self.server.board
        if address in ("", page.FILE):
            return self._send(board.html().encode(), TYPES[".html"], "page")
        if address == ".api/changes":
            since = words.get("since", ["0"])[0]
            return self._json(board.changes(int(since) if since.isdecimal() and len(since) < 18 else 0))
        if address == ".api/compare":
            return self._json(board.compared([*dict.fromkeys(words.get("run", []))]))
        return self._file(board.file(address))

    do_HEAD = do_GET  # noqa: N815

    def _refuse(self) -> None:
        self._say(HTTPStatus.METHOD_NOT_ALLOWED, "nothing can be changed here")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse  # noqa: N815

    def _json(self, content: object) -> None:
        if content is None:
            return self._say(HTTPStatus.NOT_FOUND, f"name 1 to {compare.MOST} runs that are here")
        return self._send(json.dumps(content, allow_nan=False).encode(), "application/json", "other")

    def _file(self, path: Path | None) -> None:
        if path is None:
            return self._say(HTTPStatus.NOT_FOUND, "there is no such report or picture")
        try:
            with open(path, "rb", opener=no_link) as file:
                self._head(HTTPStatus.OK, TYPES[path.suffix], os.fstat(file.fileno()).st_size,
                           "report" if path.suffix == ".html" else "other")  # fmt: skip
                self._body(file)
        except OSError:
            self.close_connection = True

    def _body(self, file: BinaryIO) -> None:
        if self.command != "HEAD":
            shutil.copyfileobj(file, self.wfile)

    def _say(self, status: HTTPStatus, words: str) -> None:
        self._send(f"{words}\n".encode(), "text/plain; charset=utf-8", "other", status)

    def _send(self, content: bytes, kind: str, policy: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._head(status, kind, len(content), policy)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _head(self, status: HTTPStatus, kind: str, length: int, policy: str) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(length),
            "Content-Security-Policy": POLICIES[policy],
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = "GET, HEAD"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: names of runs do not belong into a terminal."""
