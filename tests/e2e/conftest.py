"""One store for all whole runs."""

from pathlib import Path

import pytest

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
