"""Commands of any version of the package, by nothing but their words, files, exit status and what they say.

ANOMALY_TREE names the folder that has the package; by default it is this repository.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

TREE = Path(os.environ.get("ANOMALY_TREE", Path(__file__).parents[1])).resolve()
OLD = not (TREE / "anomaly_lab" / "pipeline").is_dir()
FORMER = {  # what settings were called in version 0.1.0
    "data.store.folder": "data.store_dir",
    "data.store.on_bad": "data.on_bad",
    "data.store.scoring_batch_size": "data.scoring_batch_size",
    "data.split.train_normals": "data.train_normals",
    "data.split.val_fraction": "data.val_fraction",
    "data.twin.size": "data.twin_size",
}
NEW = ("data.protocol",)  # which version 0.1.0 did not have
SECONDS = 120  # after which a command hangs, on a busy machine


def settings(values: Mapping[str, object]) -> list[str]:
    """Overrides `key=value` as the tree calls them."""
    return [
        f"{FORMER.get(key, key) if OLD else key}={value}" for key, value in values.items() if not (OLD and key in NEW)
    ]


def die_at(event: str, name: str, number: int = 1) -> str:
    """Python that kills its process just before the `number`-th rename, link or opening of a path that has `name`.

    Args:
        event: audit event: `os.rename` (destination), `os.link` (source), `open` for writing; a file that would be
            emptied by its opening is.
        name: part of the path.
        number: the how-manieth time.
    """
    return f"""
import os, signal, sys
left = [{number}]
def die(event, arguments):
    if event != {event!r}:
        return
    path = str(arguments[1 if event == "os.rename" else 0])
    if {name!r} not in path or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        return
    left[0] -= 1
    if not left[0]:
        if event == "open" and arguments[2] & os.O_TRUNC and os.path.exists(path):
            os.truncate(path, 0)
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
"""


def fail_in(name: str, error: str) -> str:
    """Python by which the system refuses, with an error such as ENOSPC, to change what has `name` in its path."""
    return f"""
import errno, os, sys
def fail(event, arguments):
    if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate"):
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
        return
    if any({name!r} in str(path) for path in arguments):
        raise OSError(errno.{error}, os.strerror(errno.{error}), str(arguments[0]))
sys.addaudithook(fail)
"""


class Ended(NamedTuple):
    """How a command ended and what it said."""

    status: int
    said: str

    @property
    def is_refusal(self) -> bool:
        """Whether it ended as a user's error does: status 2, one line for it, no traceback."""
        complaints = [line for line in self.said.splitlines() if line.startswith("error: ")]
        return self.status == 2 and "Traceback" not in self.said and len(complaints) == 1


class Running:
    """A command that was started."""

    def __init__(self, server: Server, pid: int, said: Path) -> None:
        self.server, self.pid, self._said = server, pid, said

    def said(self) -> str:
        return self._said.read_text(errors="replace") if self._said.exists() else ""

    def wait(self, seconds: float = SECONDS) -> Ended:
        """How it ends, or is ended after some seconds."""
        return Ended(self.server.ask({"wait": self.pid, "seconds": seconds}), self.said())


class Server:
    """A process of `fork_commands.py` that starts commands of one tree.

    Args:
        folder: for what the commands say.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, 0
        environment = {**os.environ, "PYTHONPATH": str(TREE), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
        for name in ("ANOMALY_DATA", "ANOMALY_EXPERIMENTS", "ANOMALY_TRUST"):
            environment.pop(name, None)
        program = Path(__file__).with_name("e2e") / "fork_commands.py"
        self._process = subprocess.Popen(
            [sys.executable, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, question: dict[str, object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: int = json.loads(self._process.stdout.readline())
        return answer

    def start(
        self,
        *words: str | Path,
        folder: Path | None = None,
        first: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Running:
        """Start a command in a working folder; `first` is Python that its process executes before."""
        self._started += 1
        said = self._folder / f"said-{self._started}"
        question: dict[str, object] = {
            "words": [str(word) for word in words],
            "folder": str(folder or self._folder),
            "environment": dict(environment or {}),
            "first": first,
            "said": str(said),
        }
        return Running(self, self.ask(question), said)

    def run(
        self,
        *words: str | Path,
        folder: Path | None = None,
        first: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """The same, to its end."""
        return self.start(*words, folder=folder, first=first, environment=environment).wait()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
