"""PatchDataModule: from files on disk to batches, the same way for every data set."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, cast, get_args

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anomaly_lab.data.batches import IterationSampler, ScoringImages, TrainingImages, chunks
from anomaly_lab.data.preprocessing.augmentation import Augmentation
from anomaly_lab.data.preprocessing.patches import PatchSampling
from anomaly_lab.data.preprocessing.transforms import Picture, Preprocessing, Volume, to_float
from anomaly_lab.data.preprocessing.volume_augmentation import VolumeAugmentation
from anomaly_lab.data.readers.files import crop, is_deep, read_scan
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.splitting.audit import audit
from anomaly_lab.data.splitting.rows import Limits, rows_of_splits
from anomaly_lab.data.splitting.splits import SPLITS, Split, SplitRule, split_by_file, split_by_seed
from anomaly_lab.data.splitting.streams import stream
from anomaly_lab.data.store.disk import disk_errors, fresh_folder, locked
from anomaly_lab.data.store.index import Index
from anomaly_lab.data.store.lazy import LazyStore
from anomaly_lab.data.store.plan import StorePlan
from anomaly_lab.data.store.store import Store, open_or_build
from anomaly_lab.types import (
    Batch,
    Case,
    Channels,
    Count,
    Iterations,
    Range,
    Schedule,
    Seed,
    UserError,
    refuse_out_of_range,
)

MAX_VALIDATION_IMAGES = 512  # held-out normals scored at each validation


@dataclass(frozen=True)
class Twin:
    """The synthetic stand-in for data that are not there.

    Attributes:
        seed: of its pictures, apart from the experiment's so that splits vary over the same data.
        size: pictures, volumes or series.
    """

    seed: Seed = 0
    size: Count = 200

    def __post_init__(self) -> None:
        refuse_out_of_range(type(self), vars(self))


@dataclass(frozen=True)
class StoreOptions:
    """How pictures are kept and loaded.

    Attributes:
        enabled: False reads whole pictures from their files, each time they are asked for; set `num_workers` with it.
        folder: where stores and twins are kept.
        on_bad: "skip" leaves broken pictures out and counts them.
        num_workers: processes that load training batches; 0 is fastest for small pictures.
        scoring_batch_size: images of a batch when judging.
    """

    enabled: bool = True
    folder: str = ".store"
    on_bad: Literal["fail", "skip"] = "fail"
    num_workers: Annotated[int, Range("[0, 256]")] = 0
    scoring_batch_size: Annotated[int, Range("[1, 65536]")] = 64

    def __post_init__(self) -> None:
        refuse_out_of_range(type(self), vars(self))


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
        source: Literal["auto", "real", "twin"] = "auto",
        patch_size: Annotated[tuple[int, ...], Range("[1, 2048]", counts=(2, 3))] = (64, 64),
        in_channels: Channels = 1,
        batch_size: Annotated[int, Range("[1, 65536]")] = 64,
        epoch_length: Iterations = 100,
        seed: Seed = 0,
        picture: Picture = Picture(),
        volume: Volume | None = None,
        cut: PatchSampling | None = None,
        augment: Augmentation | None = None,
        split: Split = Split(),
        limits: Limits | None = None,
        twin: Twin = Twin(),
        store: StoreOptions = StoreOptions(),
    ) -> None:
        """Check what can be checked without reading a picture.

        Args:
            root: folder of the real files.
            source: "auto" takes the real files if `root` exists, else the synthetic twin.
            patch_size: height and width the detector sees, in pixels; three numbers for patches of volumes.
            in_channels: 1 grey or 3 colour.
            batch_size: images of a training mini-batch, over all devices.
            epoch_length: iterations between two validations and checkpoints.
            seed: of split, sampling and augmentation.
            picture: the size that pictures are brought to.
            volume: axes, spacing and range of volumes; None for Volume's defaults.
            cut: the windows that become patches; None makes a whole picture one patch, and cuts volumes by
                PatchSampling's defaults.
            augment: random changes to training images; None for no change.
            split: who trains, who is held out and who is judged.
            limits: most rows of each split, drawn before anything is read where there is no `cut`.
            twin: seed and size of the synthetic twin.
            store: how pictures are kept and loaded.

        Raises:
            UserError: `source` is "real" and there is no `root`.
            ValueError: a number that its type does not admit, or an augmentation that is for volumes alone.
        """
        super().__init__()
        refuse_out_of_range(PatchDataModule, locals())
        if in_channels not in get_args(Channels):
            raise ValueError(f"in_channels={in_channels}: takes 1 (grey) or 3 (colour)")
        self.patch_size, self.in_channels, self.batch_size = tuple(patch_size), in_channels, batch_size
        self.epoch_length, self.seed = epoch_length, seed
        self.preprocessing = Preprocessing(
            self.patch_size if cut is None and picture.size is None else picture.size, picture.fit, volume or Volume()
        )
        self.patch_sampling = cut
        within = cut is not None and cut.label == "mask"
        self.split_rule = SplitRule(**vars(split), seed=seed, within=within)
        self.limits = limits.given() if limits else {}
        self.augmentation = augment
        if augment and len(self.patch_size) == 3:
            self.augmentation = VolumeAugmentation(**vars(augment))
        elif augment:
            augment.check_suits_pictures()
        self.stored, self.store_dir, self.on_bad = store.enabled, Path(store.folder), store.on_bad
        self.num_workers, self.scoring_batch_size = store.num_workers, store.scoring_batch_size
        self.twin = twin
        self.source, self.folder = self._choose(Path(root), source)
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
        scan = read_scan(case, self.in_channels, self.preprocessing.volume.tolerance)
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
        self.by_owners = self.split_rule.file is None and any(case.split for case in cases)
        self._ready = True

    def _split(self, cases: Sequence[Case], tolerant: bool) -> dict[str, str]:
        """Split of every case id, by the user's file or drawn."""
        if self.split_rule.file is not None:
            return split_by_file(cases, Path(self.split_rule.file), self.split_rule.within)
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
        if self.split_rule.file is not None:
            return f"file {self.split_rule.file}"
        return f"the owners' split where there is one; {self.split_rule}" if self.by_owners else str(self.split_rule)

    def _choose(self, root: Path, source: str) -> tuple[Literal["real", "twin"], Path]:
        if source != "twin" and root.exists():
            return "real", root
        if source == "real":
            raise UserError(f"{root}: no such folder (data.root); {self.where_to_get}; or data.source=twin")
        twin = f"{self.name}-v{self.twin_version}-seed{self.twin.seed}-{self.twin.size}"
        return "twin", self.store_dir / "twins" / twin

    def _make_twin(self) -> None:
        with disk_errors(self.store_dir), locked(self.store_dir, f"{self.name}-twin"):
            if not self.folder.exists():
                with fresh_folder(self.folder) as work:
                    self.write_twin(work, self.twin.seed, self.twin.size)

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
