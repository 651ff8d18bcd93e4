"""Whole runs, as a user starts them, on a small twin and a small network."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def small(tmp_path: Path, store: Path) -> list[str]:
    """Overrides: 6 + 6 iterations on 32×32 pictures of a twin of 60, an epoch every 3."""
    return [
        "budget=smoke",
        f"runs={tmp_path / 'runs'}",
        f"data.root={tmp_path / 'nothing'}",
        f"data.store_dir={store}",
        "data.twin_size=60",
        "data.train_normals=20",
        "data.patch_size=[32,32]",
        "data.batch_size=4",
        "data.epoch_length=3",
        "detector.width=4",
        "detector.n_critic=2",
        "detector.gan_iterations=6",
        "detector.encoder_iterations=6",
        "callbacks.wandb.mode=disabled",
        "callbacks.record.every=2",
        "evaluation.replicates=50",
    ]
