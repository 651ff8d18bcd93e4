"""A Head-CT folder of a dozen tiny pictures, made on the spot."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data_sections import sections
from PIL import Image
from toy_plans import plan_of, write_pictures

from anomaly_lab.data.datasets.headct import HeadCT
from anomaly_lab.data.store.plan import StorePlan
from anomaly_lab.types import Phase, Schedule


def write_headct(root: Path, normal: int = 10, anomalous: int = 3) -> Path:
    """Write the official layout: the anomalous first, every picture of its own size."""
    folder = root / "head_ct" / "head_ct"
    folder.mkdir(parents=True)
    labels = ["id, hemorrhage"]
    for i in range(normal + anomalous):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 18), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
        labels.append(f"{i},{int(i < anomalous)}")
    (root / "labels.csv").write_text("\n".join(labels) + "\n")
    return root


@pytest.fixture
def headct(tmp_path: Path) -> Path:
    return write_headct(tmp_path / "headct")


@pytest.fixture
def make(headct: Path, tmp_path: Path):
    """Build the data module on the tiny folder; keywords replace arguments."""

    def make(**changes) -> HeadCT:
        arguments = {"root": str(headct), "patch_size": (8, 8), "batch_size": 4, "epoch_length": 3}
        arguments |= {"store_dir": str(tmp_path / "store"), "train_normals": 8, "val_fraction": 0.2}
        arguments |= {"protocol": "random", "group": "patient"}  # as of any data set
        return HeadCT(**sections(**(arguments | changes)))

    return make


class FakeTrainer:
    """What the data module asks of a Trainer."""

    def __init__(self, done: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.global_rank, self.world_size = rank, world_size
        self.lightning_module = self
        self.strategy = SimpleNamespace(root_device=torch.device("cpu"))
        self.schedule = Schedule((Phase("gan", 4, (), 3), Phase("encoder", 4, (), 1)))
        self.iterations_done = done


@pytest.fixture
def fake_trainer() -> type[FakeTrainer]:
    return FakeTrainer


@pytest.fixture
def left_behind(tmp_path: Path):
    """Whatever lies in the store's folder besides locks."""

    def names() -> list[str]:
        store = tmp_path / "store"
        return [path.name for path in store.rglob("*") if path.suffix != ".lock"] if store.exists() else []

    return names


@pytest.fixture
def plan(tmp_path: Path) -> StorePlan:
    """Of a store of four small pictures."""
    return plan_of(tmp_path / "root", write_pictures(tmp_path / "root"))
