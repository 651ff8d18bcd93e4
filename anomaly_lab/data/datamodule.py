"""PatchDataModule: from files on disk to batches, the same way for every data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anomaly_lab.data.audit import audit
from anomaly_lab.data.augmentation import Augmentation
from anomaly_lab.data.disk import disk_errors, fresh_folder, locked
from anomaly_lab.data.loading import JudgedImages, TrainingImages, chunks
from anomaly_lab.data.sampling import IterationSampler
from anomaly_lab.data.splits import SPLITS, split_by_file, split_by_seed
from anomaly_lab.data.store import StorePlan, open_or_build
from anomaly_lab.data.transforms import Preprocessing, quantise, to_float
from anomaly_lab.types import Batch, Case, Schedule, UserError

WATCHED = 512  # held-out normals scored at each validation


class _Training(Protocol):
    """What the road of the data wants to know of the detector."""

    schedule: Schedule
    iterations_done: int


class PatchDataModule(pl.LightningDataModule, ABC):
    """A data set: where its files lie and who is anomalous (subclass), and the road from there (here).

    After `setup`: `store` holds the pixels, `rows` the rows of the store in each split. The trainer needs
    `reload_dataloaders_every_n_epochs=1` and `use_distributed_sampler=False`.

    Attributes:
        name: of the data set, lower case.
        where_to_get: how to come by the real files and lay them out.
        twin_version: goes up whenever the twin's pictures change.
        source: "real" or "twin", known from the start.
        folder: root of the files in use.
    """

    name: str
    where_to_get: ClassVar[str]
    twin_version: ClassVar[int] = 1

    def __init__(
        self,
        root: str,
        patch_size: tuple[int, ...] = (64, 64),
        in_channels: int = 1,
        batch_size: int = 64,
        scoring_batch_size: int = 64,
        epoch_length: int = 100,
        source: Literal["auto", "real", "twin"] = "auto",
        splits: str | None = None,
        train_normals: float = 0.75,
        val_fraction: float = 0.1,
        seed: int = 0,
        augment: dict[str, float] | None = None,
        on_bad: Literal["fail", "skip"] = "fail",
        store_dir: str = ".store",
        num_workers: int = 0,
        twin_seed: int = 0,
        twin_size: int = 200,
    ) -> None:
        """Check what can be checked without reading a picture.

        Args:
            root: folder of the real files.
            patch_size: height and width the detector sees, in pixels.
            in_channels: 1 grey or 3 colour.
            batch_size: images of a training mini-batch, over all devices.
            scoring_batch_size: images of a batch when judging.
            epoch_length: iterations between two validations and checkpoints.
            source: "auto" takes the real files if `root` exists, else the synthetic twin.
            splits: CSV with the columns id, split that replaces the drawn split.
            train_normals: normal patients to train, those held out included: a count, or below 1 a fraction.
            val_fraction: fraction of these held out for thresholds.
            seed: of split, sampling and augmentation.
            augment: arguments of Augmentation; None for no change.
            on_bad: "skip" leaves broken pictures out and counts them.
            store_dir: where stores and twins are kept.
            num_workers: processes that load training batches; 0 is fastest for small pictures.
            twin_seed: of the twin's pictures, apart from `seed` so that splits vary over the same data.
            twin_size: pictures of the twin.
        """
        super().__init__()
        if len(patch_size) != 2 or in_channels not in {1, 3}:
            raise UserError("data: patch_size takes two numbers (height, width), in_channels 1 or 3")
        if min(*patch_size, batch_size, scoring_batch_size, epoch_length) < 1:
            raise UserError("data: patch_size, batch_size, scoring_batch_size and epoch_length start at 1")
        self.patch_size, self.in_channels = tuple(patch_size), in_channels
        self.batch_size, self.scoring_batch_size = batch_size, scoring_batch_size
        self.epoch_length, self.seed = epoch_length, seed
        self.splits, self.train_normals, self.val_fraction = splits, train_normals, val_fraction
        self.augmentation = _augmentation(augment)
        self.on_bad, self.store_dir, self.num_workers = on_bad, Path(store_dir), num_workers
        self.twin_seed, self.twin_size = twin_seed, twin_size
        self.source, self.folder = self._choose(Path(root), source)
        self.preprocessing = Preprocessing(self.patch_size, in_channels)
        self.allow_zero_length_dataloader_with_multiple_devices = True  # more ranks than batches to judge
        self._ready = False

    @abstractmethod
    def cases(self, root: Path) -> list[Case]:
        """List the data set, raising UserError where files and lists disagree."""

    @abstractmethod
    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic files of the official layout with known lesions."""

    def prepare_data(self) -> None:
        """Make the twin and the store, where they are not there yet."""
        self.setup("fit")

    def setup(self, stage: str | None = None) -> None:
        """Open the store and look up the splits; cheap when repeated."""
        if self._ready:
            return
        if self.source == "twin":
            self._make_twin()
        cases = self.cases(self.folder)
        if self.splits is None:
            split = split_by_seed(cases, self.train_normals, self.val_fraction, self.seed)
        else:
            split = split_by_file(cases, Path(self.splits))
        plan = StorePlan(self.name, self.folder, cases, self.preprocessing)
        self.store = open_or_build(plan, self.store_dir, self.on_bad)
        of_row = np.array([split[facts["id"]] for facts in self.store.index])
        self.rows = {name: np.flatnonzero(of_row == name) for name in SPLITS}
        normals = len(self.rows["train"])
        if normals < self.batch_size:
            raise UserError(f"data.batch_size={self.batch_size}: only {normals} normals train, set it no higher")
        self._ready = True

    def train_dataloader(self) -> DataLoader[Batch]:
        """Load the rest of the current Lightning epoch: an item per iteration, [minibatches, B, C, *S]."""
        training = cast("_Training", self._trainer().lightning_module)
        rank, world_size = self._place()
        if self.batch_size % world_size:
            raise UserError(f"data.batch_size={self.batch_size} is not divisible by {world_size} devices; make it so")
        done = training.iterations_done
        epoch = range(done, training.schedule.epoch_end(done, self.epoch_length))
        sampler = IterationSampler(training.schedule, epoch, self.batch_size, rank, world_size)
        images = TrainingImages(self.store, self.rows["train"], self.augmentation, self.seed)
        return self._loader(images, sampler, self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Load held-out normals, at most WATCHED of them, all on every rank: to watch their mean score in training."""
        watched = chunks(self.rows["val"][:WATCHED], self.scoring_batch_size)
        return self._loader(JudgedImages(self.store), watched, 0)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Load the held-out normals, which set the threshold, then the test split.

        Whole batches are dealt to the ranks, so that batches are the same under any number of processes.
        """
        rank, world_size = self._place()
        judged = np.concatenate([self.rows["val"], self.rows["test"]])
        mine = chunks(judged, self.scoring_batch_size)[rank::world_size]
        return self._loader(JudgedImages(self.store), mine, 0)

    def images(self, split: str) -> Iterator[Tensor]:
        """Yield the images of a split, [B, C, *S] in [-1, 1], without augmentation."""
        for rows in chunks(self.rows[split], self.scoring_batch_size):
            yield to_float(self.store.images[rows])

    def read_for_scoring(self, files: Sequence[Path]) -> Tensor:
        """Read new files exactly as the store's were: [B, C, *S] in [-1, 1].

        Raises:
            UserError: a file is unreadable, not finite or constant.
        """
        dtype = self.store.images.dtype
        return to_float(np.stack([quantise(self.preprocessing.image(path), dtype) for path in files]))

    def facts(self) -> dict[str, Any]:
        """Tell what the record and the report say of the data."""
        index, labels = self.store.index, self.store.labels
        count = {name: Counter(labels[rows].tolist()) for name, rows in self.rows.items()}
        by_seed = f"train_normals={self.train_normals:g}, val_fraction={self.val_fraction:g}, seed={self.seed}"
        return {
            "name": self.name,
            "source": self.source,
            "root": str(self.folder),
            "fingerprint": self.store.fingerprint,
            "store": self.store.folder.name,
            "counts": {name: {"normal": count[name][0], "anomalous": count[name][1]} for name in SPLITS},
            "patients": {name: len({index[i]["patient"] for i in rows}) for name, rows in self.rows.items()},
            "split_rule": by_seed if self.splits is None else f"file {self.splits}",
            "skipped": self.store.skipped,
            "audit": audit(self.store, self.rows),
        }

    def _choose(self, root: Path, source: str) -> tuple[Literal["real", "twin"], Path]:
        if source != "twin" and root.exists():
            return "real", root
        if source == "real":
            raise UserError(f"{root}: no such folder (data.root); {self.where_to_get}; or data.source=twin")
        twin = f"{self.name}-v{self.twin_version}-seed{self.twin_seed}-{self.twin_size}"
        return "twin", self.store_dir / "twins" / twin

    def _make_twin(self) -> None:
        with disk_errors(self.store_dir), locked(self.store_dir, f"{self.name}-twin"):
            if not self.folder.exists():
                with fresh_folder(self.folder) as work:
                    self.write_twin(work, self.twin_seed, self.twin_size)

    def _loader(self, images: Dataset[Batch], sampler: Any, num_workers: int) -> DataLoader[Batch]:
        pin = torch.cuda.is_available()
        return DataLoader(images, batch_size=None, sampler=sampler, num_workers=num_workers, pin_memory=pin)

    def _place(self) -> tuple[int, int]:
        """Rank of this process and number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _trainer(self) -> pl.Trainer:
        if self.trainer is None:
            raise RuntimeError("training batches follow the detector's schedule: attach the data to a Trainer")
        return self.trainer


def _augmentation(arguments: dict[str, float] | None) -> Augmentation | None:
    if not arguments:
        return None
    known = [field.name for field in fields(Augmentation)]
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise UserError(f"data.augment: unknown {', '.join(map(str, unknown))}; it takes {', '.join(known)}")
    return Augmentation(**arguments)
