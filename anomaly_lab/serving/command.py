"""The command `serve`: score what is sent to this machine, until it is stopped."""

from __future__ import annotations

import logging
import resource
import socket
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_address

from rich.console import Console
from rich.text import Text

from anomaly_lab.experiment.words import own_settings
from anomaly_lab.serving.jobs import Answering
from anomaly_lab.serving.settings import Settings
from anomaly_lab.types import UserError

NEEDED = ("fastapi", "uvicorn", "python_multipart")  # the extra `serve`
console = Console(stderr=True, highlight=False, soft_wrap=True)  # that of the pipeline would import torch
_GRACE = 30  # seconds to finish what has begun, after a signal to end


def main(run: str, words: Sequence[str] = ()) -> None:
    """Serve a run until a signal ends it.

    Args:
        run: the run folder.
        words: `key=value` words: settings, see `Settings`, and keys of `scorer.SETTINGS`.

    Raises:
        UserError: the extra is not installed; the run cannot score; the address cannot be had.

    Examples:
        >>> main("runs/ganomaly_headct/20260101-120000-laptop-1a2b", ["port=9000"])  # doctest: +SKIP
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"serving needs {', '.join(missing)}: pip install 'anomaly_lab[serve]'")
    settings, overrides = own_settings(Settings, words)
    import uvicorn

    from anomaly_lab.serving.app import create
    from anomaly_lab.serving.worker import Worker

    for name in ("python_multipart", "asyncio"):  # whose messages could quote a request
        logging.getLogger(name).setLevel(logging.CRITICAL)
    opened = partial(_opened, run, int(settings.max_megavoxels * 1e6), overrides)
    worker = Worker(opened, settings.timeout, int(settings.max_gb * 2**30))
    with _listening(settings) as listener:
        worker.start()
        try:
            for caveat in worker.facts["caveats"]:
                _say(caveat, "bold yellow")
            if not _is_local(settings.host):
                _say(
                    "whoever reaches this address may send files, and nothing is encrypted: put a gateway before it",
                    "yellow",
                )
            host, port = listener.getsockname()[:2]
            _say(f"serving {worker.facts['run']['name']} on http://{f'[{host}]' if ':' in host else host}:{port}")
            _allow_connections(settings.queue)
            options = uvicorn.Config(
                create(worker, settings),
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE,
                backlog=settings.queue,
            )
            try:
                uvicorn.Server(options).run(sockets=[listener])
            except KeyboardInterrupt:
                _say("stopped")
        finally:
            worker.close()


def _say(line: str, style: str = "") -> None:
    console.print(Text(line, style=style))


def _opened(run: str, largest: int, overrides: Sequence[str]) -> Answering:
    """Open the run, in the process that scores: the other one never imports torch."""
    from anomaly_lab.serving.answers import RunAnswers

    return RunAnswers.open(run, largest, overrides)


def _listening(settings: Settings) -> socket.socket:
    """Take the address before the run is opened, which takes longer."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:  # the latter of a name that no host can have
        reason = getattr(error, "strerror", None) or "no such name"
        raise UserError(
            f"host={settings.host} port={settings.port}: the address cannot be had ({reason}); choose another"
        ) from error
    return listener


def _allow_connections(queue: int) -> None:
    """Raise the limit of open files, which many systems set below the number of connections that may wait."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = queue + 500 if hard == resource.RLIM_INFINITY else min(queue + 500, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
