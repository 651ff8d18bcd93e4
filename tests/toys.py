"""Small pictures, detectors to follow by hand, and how a detector is fed, trained and asked with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, Dataset

from anomaly_lab.callbacks.checkpoints import Checkpoints
from anomaly_lab.callbacks.fakepool import FakePool
from anomaly_lab.callbacks.randomness import Randomness
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.families.fake_pool import DrawsFromPool
from anomaly_lab.experiment.checkpoint_files import CheckpointFiles
from anomaly_lab.types import Batch, Phase, Prediction

Fit = Callable[..., Detector]


class Iterations(Dataset[Batch]):
    """Item i holds the mini-batches of iteration first + i, drawn by a generator of its own.

    A supervised detector gets targets: of a phase that draws more than normals, every other image is anomalous.
    """

    def __init__(self, detector: Detector, images: Tensor, length: int, batch_size: int, first: int = 0) -> None:
        self.detector, self.images, self.batch_size = detector, images, batch_size
        self.length, self.first = length, first

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Batch:
        if i >= self.length:
            raise IndexError
        minibatches = self.detector.phase.minibatches
        shape = (minibatches, self.batch_size)
        chosen = torch.randint(len(self.images), shape, generator=torch.Generator().manual_seed(self.first + i))
        images = self.images[chosen]
        if not self.detector.supervised:
            return Batch(image=images)
        anomalous = torch.arange(self.batch_size) % 2 * (self.detector.phase.cases != "normal")
        images = torch.where((anomalous == 1).view(1, -1, *[1] * (images.ndim - 2)), squared(images), images)
        return Batch(image=images, target=targets(self.detector, anomalous.expand(minibatches, -1)))


class ToyData(pl.LightningDataModule):
    """Feeds a detector with normals [N, C, H, W], epoch by epoch as PatchDataModule does.

    Args:
        images: the normals.
        batch_size: of a mini-batch.
        epoch_length: iterations between two checkpoints; by default a phase is an epoch.
    """

    def __init__(self, images: Tensor, batch_size: int = 4, epoch_length: int = 1_000_000) -> None:
        super().__init__()
        self.images, self.batch_size, self.epoch_length = images, batch_size, epoch_length
        self.in_channels, self.patch_size = images.shape[1], tuple(images.shape[2:])

    def train_dataloader(self) -> DataLoader[Batch]:
        detector: Any = self.trainer.lightning_module
        done = detector.iterations_done
        length = detector.schedule.epoch_end(done, self.epoch_length) - done
        return DataLoader(Iterations(detector, self.images, length, self.batch_size, first=done), batch_size=None)


def train(
    detector: Detector,
    data: ToyData,
    run: Path,
    checkpoint: Path | None = None,
    callbacks: Sequence[pl.Callback] = (),
    **over: Any,
) -> pl.Trainer:
    """Train a detector to its end as a run does: random numbers by iteration, checkpoints, a fake pool if it wants one.

    Args:
        detector: a fresh one.
        data: what it is trained on.
        run: folder for checkpoints and pool.
        checkpoint: where to go on from; None begins.
        callbacks: further ones.
        over: arguments of the Trainer.
    """
    for folder in ("checkpoints", "samples"):
        (run / folder).mkdir(parents=True, exist_ok=True)
    draws_every = max(1, len(detector.schedule.span("gan")) // 40)
    pool = [FakePool(draws_every, 2 * data.batch_size)] if isinstance(detector, DrawsFromPool) else []
    settings: dict[str, Any] = {
        "max_epochs": detector.schedule.epochs_left(0, data.epoch_length),
        "accelerator": "cpu",
        "logger": False,
        "callbacks": [Randomness(0), *pool, *callbacks, Checkpoints(keep=1000)],
        "plugins": [CheckpointFiles()],
        "default_root_dir": run,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "reload_dataloaders_every_n_epochs": 1,
        "inference_mode": False,
    }
    trainer = pl.Trainer(**settings | over)
    trainer.fit(detector, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return trainer


def smooth(n: int, seed: int, coarse_side: int = 4) -> Tensor:
    """Blurred noise [n, 1, 32, 32] in [-1, 1] of coarse_side² values: pictures with structure, no two alike."""
    coarse = torch.rand(n, 1, coarse_side, coarse_side, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")


@dataclass(frozen=True)
class Toy:
    """The toy problem as a detector is to solve it; every test module of a detector declares one, called TOY.

    Normal pictures are bright blends of four corners, 32×32. In anomalous ones a square has its sign changed.

    Attributes:
        settings: arguments of the detector's constructor.
        batch_size: of a mini-batch.
        at_least: AUROC of the scores that must be reached.
        anomalies: "square", or "negative" where the whole picture has its sign changed. That is much easier, so it is
            only for a method whose published score does not find squares.
        why: what was measured, over how many seeds; the contract asks for it where the problem was made easier.
    """

    settings: dict[str, Any]
    batch_size: int = 16
    at_least: float = 0.9
    anomalies: Literal["square", "negative"] = "square"
    why: str = ""

    def __post_init__(self) -> None:
        if not 0.65 <= self.at_least <= 1:
            raise ValueError("a score with its sign changed must fail: at_least starts at .65")

    def auroc(self, detector: Detector, run: Path) -> float:
        """AUROC of `detector`, of these settings or others, after training in the folder `run`."""
        train(detector, ToyData(corners(256, seed=1), self.batch_size), run)
        normal, anomalous = corners(50, seed=2), corners(50, seed=3)
        anomalous = squared(anomalous) if self.anomalies == "square" else -anomalous
        low, high = (detector.score(Batch(image=images)).anomaly_score for images in (normal, anomalous))
        return auroc(low, high)


def corners(n: int, seed: int) -> Tensor:
    """Bright blends of four corners, [n, 1, 32, 32] in [0.1, 0.9]: the normal pictures of the toy problem."""
    return 0.5 + 0.4 * smooth(n, seed, coarse_side=2)


def squared(images: Tensor) -> Tensor:
    """Images [..., C, 32, 32] with the sign changed within a square."""
    changed = images.clone()
    changed[..., 8:18, 10:20] *= -1
    return changed


def targets(detector: Detector, anomalous: Tensor) -> Tensor:
    """Targets [..., K] of images that are anomalous or not, [...]: all classes of the detector but "normal" alike."""
    classes, task = detector.settings.classes, detector.settings.task
    columns = [1 - anomalous if task == "multiclass" and name == "normal" else anomalous for name in classes]
    return torch.stack(columns, -1).to(torch.int8)


def auroc(normal: Tensor, anomalous: Tensor) -> float:
    """By its definition: how often an anomalous score is above a normal one, a tie counting half."""
    above = (anomalous[:, None] > normal).double() + (anomalous[:, None] == normal).double() / 2
    return above.mean().item()


class Shift(Detector):
    """Learns one number per network: `near` the images' mean in phase one, `far` minus that in phase two."""

    networks = ("near", "far")

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.near, self.far = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.near.weight)
        nn.init.zeros_(self.far.weight)
        self.lr = lr
        self.seen: list[Tensor] = []

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("near", 3, ("near",), minibatches=2), Phase("far", 2, ("far",)))

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return SGD(self.near.parameters(), self.lr), SGD(self.far.parameters(), self.lr)

    def near_step(self, batches: Tensor) -> None:
        for batch in batches:
            self.seen.append(batch)
            self.step_optimizer("near", lambda x: (self.near.weight + self.far.weight - x.mean()).square().sum(), batch)

    def far_step(self, batches: Tensor) -> None:
        assert self.far.training
        assert not self.near.training
        for batch in batches:
            self.step_optimizer("far", lambda x: (self.near.weight + self.far.weight).square().sum(), batch)

    @torch.no_grad()
    def predict(self, image: Tensor) -> Prediction:
        return Prediction(image.flatten(1).mean(1) - self.near.weight.squeeze())
