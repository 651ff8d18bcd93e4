"""Pictures of validation normals above what a detector makes of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anomaly_lab.callbacks import reconstructions
from anomaly_lab.callbacks.reconstructions import Reconstructions, pairs
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.types import Phase, Prediction

NORMALS = torch.linspace(-1, 1, 3 * 4).reshape(3, 1, 2, 2)


class Halving(Detector):
    """Reconstructs an image by half of it."""

    networks = ("network",)

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Identity()

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("learn", 10, ("network",)),)

    def configure_optimizers(self) -> tuple[Any, ...]:
        return ()

    def predict(self, image: Tensor) -> Prediction:
        return Prediction(image.flatten(1).mean(1), None, image / 2)


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch) -> Any:
    data = SimpleNamespace(images=lambda split, at_most: iter([NORMALS] if split == "val" else []))
    monkeypatch.setattr(reconstructions, "data_of", lambda trainer: data)
    return SimpleNamespace(is_global_zero=True, default_root_dir=tmp_path, current_epoch=0)


def epochs(callback: Reconstructions, trainer: Any, detector: Detector, count: int) -> list[int]:
    """Return the iterations, one an epoch, after which there is a new picture."""
    callback.on_fit_start(trainer, detector)
    for epoch in range(count):
        trainer.current_epoch, detector.iterations_done = epoch, epoch + 1
        callback.on_train_epoch_end(trainer, detector)
    files = (Path(trainer.default_root_dir) / "samples").rglob("*.png")
    return sorted(int(file.stem) for file in files)


def test_after_ever_more_epochs_and_the_last(trainer: Any) -> None:
    assert epochs(Reconstructions(), trainer, Halving(), 10) == [1, 2, 4, 8, 10]


def test_each_image_stands_above_its_reconstruction(trainer: Any, tmp_path: Path) -> None:
    epochs(Reconstructions(images=2), trainer, Halving(), 1)
    with Image.open(tmp_path / "samples" / "reconstructions" / "00000001.png") as picture:
        pixels = np.asarray(picture) / 127.5 - 1
    above, below = pixels[:2], pixels[2:]
    assert above.shape == (2, 4)
    np.testing.assert_allclose(above[:, :2], NORMALS[0, 0], atol=0.01)
    np.testing.assert_allclose(below, above / 2, atol=0.01)


def test_none_without_normals_reconstructions_or_meaningful_scores(trainer: Any) -> None:
    assert epochs(Reconstructions(images=0), trainer, Halving(), 2) == []
    blind = Halving()
    blind.predict = lambda image: Prediction(image.flatten(1).mean(1))  # type: ignore[method-assign]
    assert epochs(Reconstructions(), trainer, blind, 2) == []
    trainer.is_global_zero = False
    assert epochs(Reconstructions(), trainer, Halving(), 2) == []


def test_rows_are_filled_up_and_volumes_cut_in_the_middle() -> None:
    image = torch.arange(3.0).reshape(3, 1, 1, 1, 1).expand(3, 1, 5, 1, 1) / 4
    assert pairs(image, -image, side=2)[..., 0].tolist() == [[128, 159], [128, 96], [191, 0], [64, 0]]
