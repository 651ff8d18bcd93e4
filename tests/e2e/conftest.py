"""One store for all whole runs, and one server that starts commands without importing torch for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Server

collect_ignore = [  # programs that tests launch, without examples to run
    "build_store.py",
    "die_in.py",
    "fork_commands.py",
    "hospital.py",
    "kills.py",
    "run_and_die.py",
    "train_many.py",
]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()
