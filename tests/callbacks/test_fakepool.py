"""When the pool is filled, what it holds, and what a resumed training makes of it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from anomaly_lab.callbacks.fakepool import FakePool
from anomaly_lab.callbacks.randomness import Randomness
from anomaly_lab.detectors.adgan import AdGAN
from anomaly_lab.detectors.families.fake_pool import Pool
from anomaly_lab.types import UserError

SIDE = 8


class Data(pl.LightningDataModule):
    in_channels, patch_size = 1, (SIDE, SIDE)

    def __init__(self, batches: list[dict[str, Tensor]]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(self.batches, batch_size=None)


def tiny(gan_iterations: int = 7) -> AdGAN:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"patch_size": (SIDE, SIDE), "width": 2, "latent_dim": 4, "n_critic": 1, "lr": 1e-2}
    return AdGAN(**sizes, gan_iterations=gan_iterations, critic_iterations=2)


def train(run: Path, detector: AdGAN, iterations: int, every: int = 3, count: int = 4) -> Pool:
    """Some iterations from where the detector is, in a run folder."""
    (run / "samples").mkdir(parents=True, exist_ok=True)
    images = torch.rand(6, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    begun = detector.iterations_done
    batches = [{"image": images[None, (torch.arange(4) + i) % 6]} for i in range(begun, begun + iterations)]
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[Randomness(0), FakePool(every, count)],
        default_root_dir=run,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(detector, datamodule=Data(batches))
    return Pool(run / "fakepool")


@pytest.mark.parametrize(("every", "iterations"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [1, 4, 7]), (4, [1, 5]), (9, [1])])
def test_it_holds_so_many_of_every_so_many_iterations(tmp_path: Path, every: int, iterations: list[int]) -> None:
    pool = train(tmp_path, tiny(), 7, every)
    assert len(pool) == -(-7 // every) * 4
    assert pool.iterations.tolist() == np.repeat(iterations, 4).tolist()


def test_early_and_late_images_differ_and_none_is_twice_there(tmp_path: Path) -> None:
    images = train(tmp_path, tiny(30), 30, every=10).images.astype(float)
    early, late = images[:4], images[-4:]
    within = np.abs(early - early[::-1]).mean()
    assert np.abs(early.mean(0) - late.mean(0)).mean() > 0.5 * within
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_killed_and_resumed_it_has_the_same_bytes(tmp_path: Path) -> None:
    """Killed after iteration 6, resumed from a checkpoint of iteration 2."""
    train(tmp_path / "whole", tiny(), 7, every=2)
    detector = tiny()
    train(tmp_path / "killed", detector, 2, every=2)
    saved = {key: value.clone() for key, value in detector.state_dict().items()}
    optimizers = [copy.deepcopy(optimizer.state_dict()) for optimizer in detector.trainer.optimizers]
    train(tmp_path / "killed", _restored(saved, optimizers), 4, every=2)
    train(tmp_path / "killed", _restored(saved, optimizers), 5, every=2)
    for name in ("images.npy", "iterations.npy"):
        whole, resumed = (tmp_path / run / "fakepool" / name for run in ("whole", "killed"))
        assert whole.read_bytes() == resumed.read_bytes()


def _restored(state: dict[str, Tensor], optimizers: list[dict[str, Any]]) -> AdGAN:
    class Resumed(AdGAN):
        def on_train_start(self) -> None:
            for optimizer, saved in zip(self.trainer.optimizers, optimizers, strict=True):
                optimizer.load_state_dict(copy.deepcopy(saved))

    fresh = Resumed(**tiny().hparams)
    fresh.load_state_dict(state)
    return fresh


def test_the_second_phase_gets_it(tmp_path: Path) -> None:
    detector = tiny()
    train(tmp_path, detector, 7)
    assert detector.pool is None  # an epoch ends with its phase
    train(tmp_path, detector, 2)
    assert detector.pool is not None
    assert len(detector.pool) == 12


def test_a_pool_of_another_size_is_refused(tmp_path: Path) -> None:
    detector = tiny()
    train(tmp_path, detector, 7)
    with pytest.raises(UserError, match=r"holds 12 images, but callbacks\.fakepool .*count=4 needs 16"):
        train(tmp_path, detector, 2, every=2)


def test_its_picture_has_a_row_for_a_time(tmp_path: Path) -> None:
    train(tmp_path, tiny(), 7)
    with Image.open(tmp_path / "samples" / "fakepool.png") as picture:
        assert picture.size == (4 * SIDE, 3 * SIDE)
        assert picture.info["iterations"] == "1,4,7"


@pytest.mark.parametrize(("every", "count"), [(0, 1), (1, 0)])
def test_nonsense_is_refused(every: int, count: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FakePool(every, count)
