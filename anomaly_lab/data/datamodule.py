"""PatchDataModule: from files on disk to batches, the same way for every data set."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anomaly_lab.data.batches import IterationSampler, ScoringImages, TrainingImages, chunks
from anomaly_lab.data.preprocessing.augmentation import Augmentation
from anomaly_lab.data.preprocessing.patches import PatchSampling
from anomaly_lab.data.preprocessing.transforms import Preprocessing, Volume, to_float
from anomaly_lab.data.preprocessing.volume_augmentation import VolumeAugmentation
from anomaly_lab.data.readers.files import crop, is_deep, read_scan
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.splitting.audit import audit
from anomaly_lab.data.splitting.rows import checked_limits, rows_of_splits
from anomaly_lab.data.splitting.splits import SPLITS, SplitRule, split_by_file, split_by_seed
from anomaly_lab.data.splitting.streams import stream
from anomaly_lab.data.store.disk import disk_errors, fresh_folder, locked
from anomaly_lab.data.store.index import Index
from anomaly_lab.data.store.lazy import LazyStore
from anomaly_lab.data.store.plan import StorePlan
from anomaly_lab.data.store.store import Store, open_or_build
from anomaly_lab.types import Batch, Case, Schedule, UserError

MAX_VALIDATION_IMAGES = 512  # held-out normals scored at each validation
_Settings = TypeVar("_Settings")


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
        version: goes up whenever `cases` or `read` change what is read.
        official: counts that the whole official set must give, by the names of `census`; "images" tells whether it is
            whole.
        source: "real" or "twin", known from the start.
        folder: root of the files in use.
    """

    name: str
    where_to_get: ClassVar[str]
    twin_version: ClassVar[int] = 1
    version: ClassVar[int] = 1
    official: ClassVar[dict[str, int]] = {}

    def __init__(
        self,
        root: str,
        patch_size: tuple[int, ...] = (64, 64),
        in_channels: int = 1,
        batch_size: int = 64,
        scoring_batch_size: int = 64,
        epoch_length: int = 100,
        source: Literal["auto", "real", "twin"] = "auto",
        resize: tuple[int, int] | None = None,
        fit: Literal["pad", "stretch"] = "pad",
        volume: dict[str, Any] | None = None,
        cut: dict[str, Any] | None = None,
        splits: str | None = None,
        train_normals: float = 0.75,
        val_fraction: float = 0.1,
        folds: int = 0,
        fold: int = 0,
        contamination: float = 0.0,
        limits: dict[str, float] | None = None,
        seed: int = 0,
        augment: dict[str, Any] | None = None,
        on_bad: Literal["fail", "skip"] = "fail",
        store: bool = True,
        store_dir: str = ".store",
        num_workers: int = 0,
        twin_seed: int = 0,
        twin_size: int = 200,
    ) -> None:
        """Check what can be checked without reading a picture.

        Args:
            root: folder of the real files.
            patch_size: height and width the detector sees, in pixels; three numbers for patches of volumes.
            in_channels: 1 grey or 3 colour.
            batch_size: images of a training mini-batch, over all devices.
            scoring_batch_size: images of a batch when judging.
            epoch_length: iterations between two validations and checkpoints.
            source: "auto" takes the real files if `root` exists, else the synthetic twin.
            resize: height and width a picture is brought to before patches are cut; None leaves it as it is where there
                is a `cut`, and without one makes it `patch_size`.
            fit: "pad" adds black to keep a picture's shape, "stretch" does not keep it.
            volume: arguments of Volume: axes, spacing and range of volumes.
            cut: arguments of PatchSampling: the windows that become patches; None makes a whole picture one patch, and
                cuts volumes by PatchSampling's defaults.
            splits: CSV with the columns id, split that replaces the drawn split.
            train_normals: normal patients to train, those held out included: a count, or below 1 a fraction.
            val_fraction: fraction of these held out for thresholds.
            folds: number of parts all patients are dealt into; 0 for a single split.
            fold: the part that is judged, from 0.
            contamination: share of anomalies hidden among the training normals, for studies.
            limits: most rows of train, val, test_normal and test_anomalous, drawn by the seed, before anything is read
                where there is no `cut`; a count, or below 1 a fraction.
            seed: of split, sampling and augmentation.
            augment: arguments of Augmentation, or of VolumeAugmentation for patches of volumes; None for no change.
            on_bad: "skip" leaves broken pictures out and counts them.
            store: False reads whole pictures from their files, each time they are asked for; set num_workers with it.
            store_dir: where stores and twins are kept.
            num_workers: processes that load training batches; 0 is fastest for small pictures.
            twin_seed: of the twin's pictures, apart from `seed` so that splits vary over the same data.
            twin_size: pictures of the twin.
        """
        super().__init__()
        if len(patch_size) not in {2, 3} or in_channels not in {1, 3}:
            raise UserError("data: patch_size takes two numbers (height, width), or three; in_channels 1 or 3")
        if min(*patch_size, batch_size, scoring_batch_size, epoch_length) < 1:
            raise UserError("data: patch_size, batch_size, scoring_batch_size and epoch_length start at 1")
        self.patch_size, self.in_channels = tuple(patch_size), in_channels
        self.batch_size, self.scoring_batch_size = batch_size, scoring_batch_size
        self.epoch_length, self.seed = epoch_length, seed
        self.patch_sampling = None if cut is None else _settings(PatchSampling, "data.cut", cut)
        within = self.patch_sampling is not None and self.patch_sampling.label == "mask"
        self.splits = splits
        self.split_rule = SplitRule(train_normals, val_fraction, seed, folds, fold, contamination, within)
        self.limits = checked_limits(limits)
        self.augmentation: Augmentation | VolumeAugmentation | None = None
        if augment and len(patch_size) == 2:
            self.augmentation = _settings(Augmentation, "data.augment", augment)
        elif augment:
            self.augmentation = _settings(VolumeAugmentation, "data.augment", augment)
        self.on_bad, self.store_dir, self.num_workers = on_bad, Path(store_dir), num_workers
        self.stored, self.twin_seed, self.twin_size = store, twin_seed, twin_size
        self.source, self.folder = self._choose(Path(root), source)
        size = self.patch_size if cut is None and resize is None else resize
        self.preprocessing = Preprocessing(size and tuple(size), fit, _settings(Volume, "data.volume", volume or {}))
        self.allow_zero_length_dataloader_with_multiple_devices = True  # more ranks than batches to judge
        self.unsplit = ""
        self._ready = False

    @abstractmethod
    def cases(self, root: Path) -> list[Case]:
        """List the data set, raising UserError where files and lists disagree."""

    @abstractmethod
    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic files of the official layout with known lesions."""

    def read(self, case: Case) -> Scan:
        """Read a case with its mask, by the format of its file; of a picture its `box` alone."""
        scan = read_scan(case, self.in_channels)
        return scan if case.box is None else crop(scan, case.box, case.image)

    def protocol(self) -> dict[str, Any]:
        """Options of the data set that change what is read, JSON-able."""
        return {}

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count a data set: images, normal, anomalous and each kind; compared with `official`."""
        normal = sum(case.label == 0 for case in cases)
        counts = {"images": len(cases), "normal": normal, "anomalous": len(cases) - normal}
        return counts | Counter(case.class_name for case in cases if case.class_name)

    def prepare_data(self) -> None:
        """Make the twin and the store, where they are not there yet."""
        self.setup("fit")

    def setup(self, stage: str | None = None) -> None:
        """Open the store and look up the splits; cheap when repeated.

        Under the stage "inspect", data that cannot be split are looked at without: `unsplit` says why, no row is in a
        split.
        """
        if self._ready:
            return
        if self.source == "twin":
            self._make_twin()
        cases = self._listed()
        split = self._split(cases, tolerant=stage == "inspect")
        limits = {} if self.unsplit else self.limits
        if self.patch_sampling is None and limits:  # whole pictures: those that nobody asks for are not read
            rows, limits = rows_of_splits(Index.of_cases(cases), split, self.split_rule, limits), {}
            cases = [cases[row] for row in np.sort(np.concatenate(list(rows.values()))).tolist()]
        self.store_plan = plan = self.plan(cases)
        self.store: Store | LazyStore
        if self.stored:
            self.store = open_or_build(plan, self.store_dir, self.on_bad)
        else:
            self.store = LazyStore(plan, self.folder)
        self.split = split
        self.rows = rows_of_splits(self.store.index, split, self.split_rule, limits)
        self.by_owners = self.splits is None and any(case.split for case in cases)
        self._ready = True

    def _split(self, cases: Sequence[Case], tolerant: bool) -> dict[str, str]:
        """Split of every case id, by the user's file or drawn."""
        if self.splits is not None:
            return split_by_file(cases, Path(self.splits), self.split_rule.within)
        try:
            return split_by_seed(cases, self.split_rule)
        except UserError as error:
            if not tolerant:
                raise
            self.unsplit = str(error)
            return {case.id: "" for case in cases}

    def check_trainable(self) -> None:
        """Raise UserError where too few normals are left to fill a mini-batch."""
        normals = len(self.rows["train"])
        if normals < self.batch_size:
            raise UserError(f"data.batch_size={self.batch_size}: only {normals} normals train, set it no higher")

    def plan(self, cases: Sequence[Case]) -> StorePlan:
        """What the store of these cases is made of."""
        protocol = {"class": type(self).__qualname__, "version": self.version, **self.protocol()}
        first = bool(cases) and is_deep(cases[0].image)  # pictures that are read lazily are taken to be alike
        return StorePlan(
            name=self.name,
            root=self.folder,
            cases=cases,
            read=self.read,
            preprocessing=self.preprocessing,
            patch_sampling=self.patch_sampling,
            patch_size=self.patch_size,
            in_channels=self.in_channels,
            deep=is_deep if self.stored else lambda _: first,
            protocol=protocol,
        )

    def _listed(self) -> list[Case]:
        """The cases, compared with what the whole official set must give."""
        cases = self.cases(self.folder)
        if not cases:
            raise UserError(f"{self.folder}: the list of cases is empty; {self.where_to_get}")
        if len({case.id for case in cases}) < len(cases):
            twice = [id for id, times in Counter(case.id for case in cases).items() if times > 1][:5]
            raise UserError(f"{self.folder}: the ids {', '.join(twice)} appear twice; keep one of each")
        self.counted = self.census(cases)
        if self.source == "real" and self.counted.get("images") == self.official.get("images"):
            for name, count in self.official.items():
                if self.counted.get(name, 0) != count:
                    found = self.counted.get(name, 0)
                    raise UserError(f"{self.folder}: {found} {name}, the official set has {count}; is it intact?")
        return cases

    def train_dataloader(self) -> DataLoader[Batch]:
        """Load the rest of the current Lightning epoch: an item per iteration, [minibatches, B, C, *S]."""
        training = cast("_Training", self._trainer().lightning_module)
        self.check_trainable()
        rank, world_size = self._rank_and_size()
        if self.batch_size % world_size:
            raise UserError(f"data.batch_size={self.batch_size} is not divisible by {world_size} devices; make it so")
        done = training.iterations_done
        epoch = range(done, training.schedule.epoch_end(done, self.epoch_length))
        sampler = IterationSampler(training.schedule, epoch, self.batch_size, rank, world_size)
        images = TrainingImages(self.store, self.rows["train"], self.augmentation, self.seed)
        return self._loader(images, sampler, self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Load at most MAX_VALIDATION_IMAGES validation normals, the same on every rank: their mean score is logged."""
        watched = chunks(self.rows["val"][:MAX_VALIDATION_IMAGES], self.scoring_batch_size)
        return self._loader(ScoringImages(self.store), watched, self._scoring_workers())

    def test_dataloader(self) -> DataLoader[Batch]:
        """Load the held-out normals, which set the threshold, then the test split.

        Whole batches are dealt to the ranks, so that batches are the same under any number of processes.
        """
        rank, world_size = self._rank_and_size()
        judged = np.concatenate([self.rows["val"], self.rows["test"]])
        mine = chunks(judged, self.scoring_batch_size)[rank::world_size]
        return self._loader(ScoringImages(self.store), mine, self._scoring_workers())

    def images(self, split: str, at_most: int | None = None) -> Iterator[Tensor]:
        """Yield the images of a split, [B, C, *S] in [-1, 1], without augmentation; `at_most` of them, by the seed."""
        rows = self.rows[split]
        if at_most is not None and at_most < len(rows):
            rows = np.sort(stream(self.seed, "image sample").permutation(rows)[:at_most])
        for some in chunks(rows, self.scoring_batch_size):
            yield to_float(self.store.images[some])

    def scoring_plan(self, bits: int) -> StorePlan:
        """How new scans are read and cut: as the store's were, but into every window that has something to see.

        Nothing was learned about windows of mere background where `data.cut.foreground` kept them from training. Needs
        no set-up.

        Args:
            bits: of the run's stored pixels, 8 or 16.
        """
        patch_sampling, given = None, self.patch_sampling
        if given:
            some = math.ulp(0.0) if given.foreground else 0.0
            patch_sampling = PatchSampling(overlap=given.overlap, plane=given.plane, foreground=some)
        return replace(self.plan([]), patch_sampling=patch_sampling, bits=bits)

    def facts(self) -> dict[str, Any]:
        """Tell what the record and the report say of the data."""
        labels, patients = self.store.labels, np.array(self.store.index.columns["patient"])
        count = {name: Counter(labels[rows].tolist()) for name, rows in self.rows.items()}
        return {
            "name": self.name,
            "source": self.source,
            "root": str(self.folder),
            "fingerprint": self.store.fingerprint,
            "bits": 8 * self.store.images.dtype.itemsize,
            "store": self.store.folder.name if self.stored else "none: pictures are read when asked for",
            "counts": {name: {"normal": count[name][0], "anomalous": count[name][1]} for name in SPLITS},
            "patients": {name: len(np.unique(patients[rows])) for name, rows in self.rows.items()},
            "split_rule": self._split_rule(),
            "unsplit": self.unsplit,
            "limits": self.limits,
            "contamination": self.split_rule.contamination,
            "census": self.counted,
            "official": self.official,
            "skipped": list(self.store.skipped),
            "audit": audit(self.store, {"": np.arange(len(labels))} if self.unsplit else self.rows),
        }

    def _split_rule(self) -> str:
        if self.unsplit:
            return f"none ({self.unsplit})"
        if self.splits is not None:
            return f"file {self.splits}"
        return f"the owners' split where there is one; {self.split_rule}" if self.by_owners else str(self.split_rule)

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

    def _scoring_workers(self) -> int:
        """Processes that load what is judged: none where it is one index into the store."""
        return 0 if self.stored else self.num_workers

    def _rank_and_size(self) -> tuple[int, int]:
        """Rank of this process and number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _trainer(self) -> pl.Trainer:
        if self.trainer is None:
            raise RuntimeError("training batches follow the detector's schedule: attach the data to a Trainer")
        return self.trainer


def data_of(trainer: pl.Trainer) -> PatchDataModule:
    """The data set a Trainer was given."""
    data: PatchDataModule = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, its types don't say so
    return data


def _settings(kind: type[_Settings], key: str, arguments: dict[str, Any]) -> _Settings:
    """A dataclass made from a mapping of the YAML; lists become tuples."""
    known = list(signature(kind).parameters)
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise UserError(f"{key}: unknown {', '.join(map(str, unknown))}; it takes {', '.join(known)}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()})
