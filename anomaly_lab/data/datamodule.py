"""`PatchDataModule`, the base class of all data sets: from files on disk to batches."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, cast, get_args

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anomaly_lab.data.batches import (
    EpochSampler,
    IterationSampler,
    ResidentImages,
    ScoringImages,
    TrainingImages,
    chunks,
)
from anomaly_lab.data.facts import facts_of
from anomaly_lab.data.preprocessing.augmentation import Augmentation
from anomaly_lab.data.preprocessing.crop import VERSION as CROPS
from anomaly_lab.data.preprocessing.crop import Crop, cropped
from anomaly_lab.data.preprocessing.patches import PatchSampling
from anomaly_lab.data.preprocessing.transforms import Picture, Preprocessing, Volume, to_float
from anomaly_lab.data.preprocessing.volume_augmentation import VolumeAugmentation
from anomaly_lab.data.readers.files import VERSION as READERS
from anomaly_lab.data.readers.files import crop, is_deep, read_scan
from anomaly_lab.data.readers.pictures import Rules
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.readers.tree import has_plain_name, name_of
from anomaly_lab.data.splitting import likeness
from anomaly_lab.data.splitting.classes import Classes, Coded, Labels
from anomaly_lab.data.splitting.recorded import Changes, RecordedSplit
from anomaly_lab.data.splitting.rows import Limits, in_share, rows_of_splits, whole
from anomaly_lab.data.splitting.splits import (
    Split,
    SplitRule,
    refuse_divided,
    refuse_folds,
    split_by_file,
    split_by_seed,
    split_supervised,
)
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
    Phase,
    Range,
    Schedule,
    Seed,
    UserError,
    refuse_out_of_range,
)

Supervision = Literal["none", "labels"]
Group = Literal["patient", "likeness"]
TargetType = Literal["multiclass", "multilabel"]
CROSSING = (
    "Pictures, not patients, were split: patients are in several splits, and figures better than on new patients."
)
Role = Literal["scan", "mask", "other"]  # of a file, for a data set that it is no part of
RESIDENT_SHARE = 0.25  # of a GPU's free memory that the training images may take
MAX_VALIDATION_IMAGES = 512  # largest number of validation normals scored at each validation


@dataclass(frozen=True)
class Twin:
    """Settings of the synthetic twin, the generated data set that replaces real files which are not present.

    Attributes:
        seed: seed of its pictures, separate from that of the experiment, so that splits vary over the same data.
        size: approximate number of pictures; the twin of a volume data set derives its number of volumes from it.

    Examples:
        >>> Twin(seed=1)
        Twin(seed=1, size=200)
    """

    seed: Seed = 0
    size: Count = 200

    def __post_init__(self) -> None:
        refuse_out_of_range(type(self), vars(self))


@dataclass(frozen=True)
class StoreOptions:
    """How pictures are stored and loaded.

    Attributes:
        enabled: False reads whole pictures from their files at every access; set `num_workers` as well.
        folder: folder of the stores and synthetic twins.
        on_bad: "fail" stops at a broken picture, "skip" leaves it out and counts it.
        num_workers: processes that load training batches; 0 is fastest for small pictures.
        scoring_batch_size: images per batch during evaluation.
        device: whether the pixels of the training lie on the device that trains, and are augmented there: "auto" if
            that is a GPU a quarter of whose free memory they fit, "always" or "never". Patches of volumes with
            `data.augment`, and a data set without a store, stay on the host.

    Examples:
        >>> StoreOptions(on_bad="skip").scoring_batch_size
        64
    """

    enabled: bool = True
    folder: str = ".store"
    on_bad: Literal["fail", "skip"] = "fail"
    num_workers: Annotated[int, Range("[0, 256]")] = 0
    scoring_batch_size: Annotated[int, Range("[1, 65536]")] = 64
    device: Literal["auto", "always", "never"] = "auto"

    def __post_init__(self) -> None:
        refuse_out_of_range(type(self), vars(self))


class _Training(Protocol):
    """The part of a detector that the data module uses."""

    schedule: Schedule
    iterations_done: int


class PatchDataModule(pl.LightningDataModule, ABC):
    """A data set: a subclass lists its files and labels, this class turns them into batches.

    After `setup`, `store` holds the pixels and `rows` the rows of the store in each split: normals in "train" and
    "val", both kinds in "test". With `data.supervision=labels` the anomalies of the first two are in "train_anomalous"
    and "val_anomalous", and `targets` holds the classes of every row, int8 [N, K]; else it is None. The trainer needs
    `reload_dataloaders_every_n_epochs=1` and `use_distributed_sampler=False`.

    Attributes:
        name: name of the data set, lower case.
        where_to_get: how to get and arrange the real files, as an imperative that ends error messages.
        twin_version: version of the synthetic twin; increase it when its pictures change.
        version: version of `cases` and `read`; increase it when they read something else.
        left_out: number of files that are no scans of this data set, by suffix; set by `cases`.
        official: expected counts of the complete official data set, by the names of `census`; they are compared if the
            number of images is that of "images".
        classes: names of the classes that a supervised detector tells apart.
        brightness: whether anomalies are "bright" or "dark" against normal tissue, by knowledge of the field and not by
            these labels; None if there is none. A baseline uses it.
        include: kinds of DICOM objects that are scans to this data set although usually they are none.
        users_split: whether a split that the cases come with is the user's own, in which patients must not cross;
            what owners have published is kept, and the pages say how many cross.
        implied: settings that run folders of older versions lack, with the values that these runs had.
        source: "real" or "twin", set by the constructor.
        folder: root of the files in use.
        folded: whether `cases` has set the splits itself, by the folds of `data.split.folds`.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> class Squares(PatchDataModule):
        ...     name, where_to_get = "squares", "draw them"
        ...
        ...     def cases(self, root: Path) -> list[Case]:
        ...         files = sorted(root.glob("*.png"))
        ...         return [Case(path.stem, path.stem, path, label=int(path.stem == "9")) for path in files]
        ...
        ...     def write_twin(self, root: Path, seed: int, size: int) -> None:
        ...         for i in range(10):
        ...             image = np.zeros((8, 8), np.uint8)
        ...             image[: 2 + i // 9] = 255
        ...             Image.fromarray(image).save(root / f"{i}.png")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = Squares(root="none", patch_size=(8, 8), store=StoreOptions(folder=folder))
        ...     data.setup()
        ...     data.source, {name: len(rows) for name, rows in data.rows.items()}
        ('twin', {'train': 6, 'val': 1, 'test': 3})
    """

    name: str
    where_to_get: ClassVar[str]
    twin_version: ClassVar[int] = 1
    version: ClassVar[int] = 1
    official: ClassVar[dict[str, int]] = {}
    brightness: Literal["bright", "dark"] | None = None
    include: Sequence[str] = ()
    users_split: ClassVar[bool] = False
    implied: ClassVar[dict[str, Any]] = {}

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
        crop: Crop = "none",
        cut: PatchSampling | None = None,
        augment: Augmentation | None = None,
        split: Split = Split(),
        group: Group = "patient",
        supervision: Supervision = "none",
        target_type: TargetType = "multiclass",
        classes: tuple[str, ...] = ("normal", "anomalous"),
        limits: Limits | None = None,
        twin: Twin = Twin(),
        store: StoreOptions = StoreOptions(),
    ) -> None:
        """Validate the arguments; no picture is read.

        Args:
            root: folder of the real files.
            source: "real" uses the files in `root`, "twin" the synthetic twin, "auto" the files if `root` exists and
                otherwise the synthetic twin.
            patch_size: height and width of the detector's input in pixels; three numbers for patches of volumes.
            in_channels: 1 for grey, 3 for colour.
            batch_size: images per training mini-batch, over all devices.
            epoch_length: iterations between two validations and checkpoints.
            seed: seed of split, sampling and augmentation.
            picture: how pictures and their masks are read, and the size to which they are resized.
            volume: axes, spacing and intensity range of volumes; None for the defaults of Volume.
            crop: crops every scan to what it shows, before it is resized: "head", "breast" and "fundus" to its largest
                region that is not black (with a small margin for a head), "foreground" to what differs from the grey
                of its border, "margins" to what is left without white and black rows and columns at its edges. A volume
                is cropped to one box for all of its slices. A scan that shows nothing of the kind stays whole.
            cut: selection of the windows that become patches; None makes a whole picture one patch, and cuts volumes
                by the defaults of PatchSampling.
            augment: augmentation of training images; None for no augmentation.
            split: assignment of patients to training, validation and test.
            group: "likeness" joins patients whose pictures are alike into one: neighbours in the listing, if a test
                finds them alike, and nearly identical pictures. Every file is read for it, once more.
            supervision: "labels" lets labelled anomalies train, for detectors that learn from them: the patients of all
                classes are assigned to training, validation and test. "none" keeps all of them for the test.
            target_type: with labels, "multiclass" for cases that are of exactly one of `classes` (others are left out,
                and counted), "multilabel" for cases of any number of them.
            classes: with labels, the classes to tell apart, in the terms of the data set; "normal" means label 0,
                "anomalous" label 1 whatever the class. With "multilabel", normal is none of the classes.
            limits: maximum number of rows per split; without `cut`, dropped pictures are not read.
            twin: seed and size of the synthetic twin.
            store: how pictures are stored and loaded.

        Raises:
            UserError: the class has no `name` or `where_to_get`, or `source` is "real" and `root` does not exist.
            ValueError: a number is out of range, or a setting of the augmentation applies to volumes only.
        """
        super().__init__()
        for constant in ("name", "where_to_get"):
            if not getattr(self, constant, None):
                raise UserError(f'{type(self).__name__} lacks `{constant}`: write {constant} = "…" in the class')
        refuse_out_of_range(PatchDataModule, locals())
        if in_channels not in get_args(Channels):
            raise ValueError(f"in_channels={in_channels}: takes 1 (grey) or 3 (colour)")
        self.patch_size, self.in_channels, self.batch_size = tuple(patch_size), in_channels, batch_size
        self.epoch_length, self.seed = epoch_length, seed
        self.picture = picture
        self.preprocessing = Preprocessing(
            self.patch_size if cut is None and picture.size is None else picture.size, picture.fit, volume or Volume()
        )
        self.cropping: Crop = crop
        self.patch_sampling = cut
        within = cut is not None and cut.label == "mask"
        self.supervision, self.target_type, self.classes = supervision, target_type, tuple(classes)
        supervised = supervision == "labels"
        self.labelling = Classes(self.classes, target_type == "multilabel") if supervised else None
        self.split_rule = SplitRule(**vars(split), seed=seed, within=within, supervised=supervised)
        self.group = group
        self.grouping: dict[str, Any] = {}
        self.limits = limits.given() if limits else {}
        self.augmentation = augment
        if augment and len(self.patch_size) == 3:
            self.augmentation = VolumeAugmentation(**vars(augment))
        elif augment:
            augment.check_suits_pictures()
        self.stored, self.store_dir, self.on_bad = store.enabled, Path(store.folder), store.on_bad
        self.num_workers, self.scoring_batch_size = store.num_workers, store.scoring_batch_size
        self.on_device = store.device
        self._loaded: tuple[str, tuple[float, float]] | None = None  # cases and share that the two below hold
        self._resident: ResidentImages | None = None
        self._training_loader: DataLoader[Batch] | None = None  # with processes, which outlive an epoch
        self._sampler = EpochSampler()
        self.twin = twin
        self.source, self.folder = self._choose(Path(root), source)
        self.allow_zero_length_dataloader_with_multiple_devices = True  # for more ranks than test batches
        self.unsplit, self.folded = "", False
        self.left_out: Counter[str] = Counter()
        self.other_classes: dict[str, int] = {}
        self.targets: np.ndarray | None = None
        self.changes = Changes()
        self._recorded: RecordedSplit | None = None
        self._accept_changes = False
        self._ready = False

    @abstractmethod
    def cases(self, root: Path) -> list[Case]:
        """List the cases of the data set; raise UserError if files and lists disagree."""

    @abstractmethod
    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic files with known lesions in the official layout."""

    def read(self, case: Case) -> Scan:
        """Read a case with its mask, in the format of its file; a picture is cropped to the `box` of the case."""
        scan = read_scan(case, self.in_channels, self.picture, self.preprocessing.volume.tolerance)
        return scan if case.box is None else crop(scan, case.box, case.image)

    def role(self, path: Path, source: Path) -> Role:
        """Say what a readable file is that is no part of the data set, by the rules that its own files follow.

        Args:
            path: a picture, a volume or the first file of a series, in or below `source`.
            source: the file or folder that a user wants to have scored.
        """
        return "scan"

    def known_mask(self, image: Path, source: Path) -> Path | None:
        """Return the mask of a scan that is no part of the data set, if one lies where those of the data set do."""
        return None

    def read_cropped(self, case: Case) -> Scan:
        """Read a case with its mask and crop it as `crop` says."""
        return cropped(self.read(case), self.cropping)

    @property
    def of_files_alone(self) -> str:
        """The setting by which `read_new` changes pixels of files, which nothing does to arrays; empty if none does."""
        return ""

    def read_new(self, case: Case) -> Scan:
        """Read a scan that is no part of the data set, and its mask, which is a picture or volume of the same size."""
        scan = self.read(replace(case, mask=None))
        if case.mask is None:
            return scan
        mask = read_scan(case, self.in_channels, self.picture).mask
        return replace(scan, mask=mask if scan.origin is None or mask is None else scan.origin.cut(mask))

    def protocol(self) -> dict[str, Any]:
        """Return the options of the data set that change what is read, serializable as JSON."""
        return {}

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count images, normal and anomalous cases and each class; the counts are compared with `official`."""
        normal = sum(case.label == 0 for case in cases)
        counts = {"images": len(cases), "normal": normal, "anomalous": len(cases) - normal}
        return counts | Counter(case.class_name for case in cases if case.class_name)

    def prepare_data(self) -> None:
        """Create the synthetic twin, if it is used, and the store, unless they exist."""
        self.setup("fit")

    def setup(self, stage: str | None = None) -> None:
        """Open the store and determine the rows of each split; repeated calls return at once.

        With the stage "inspect", data that cannot be split are accepted: `unsplit` holds the reason and no row is in a
        split.
        """
        if self._ready:
            return
        if self.source == "twin":
            self._make_twin()
        cases = self._listed()
        if self.group == "likeness":
            cases = self._grouped(cases)
        if self._recorded is None:
            self._open_drawn(cases, tolerant=stage == "inspect")
        else:
            self._open_recorded(cases, self._recorded)
        self.by_owners = self.split_rule.file is None and any(case.split for case in cases)
        self._ready = True

    def check_split(self) -> None:
        """Split the real files and forget it, so that what cannot be split is said before trainings wait for it.

        No picture is read; those whose patients are found by their pictures say it when they are set up.

        Raises:
            UserError: as `setup`.
        """
        if self.source == "real" and self.group == "patient":
            self._split(self._listed(), tolerant=False)

    def pin(self, recorded: RecordedSplit, accept_changes: bool = False) -> None:
        """Make `setup` use a recorded split instead of drawing one.

        Args:
            recorded: the split of a run.
            accept_changes: use what is left of the recorded pictures where the data set has changed, instead of
                refusing it; `changes` then says what changed. Pictures that were added are never used.
        """
        self._recorded, self._accept_changes = recorded, accept_changes

    def record(self) -> RecordedSplit:
        """The splits after `setup`, to be kept with a run and pinned by whoever goes on with it."""
        return RecordedSplit.of(self.store, self.rows, self.listed, self.targets)

    def is_as_recorded(self, recorded: RecordedSplit) -> bool:
        """Whether what `setup` drew is what a run recorded: the same pictures, labels and masks in the same splits."""
        rows = recorded.rows(self.store.index, supervised=self.labelling is not None)
        same_split = all(np.array_equal(members, self.rows[name]) for name, members in rows.items())
        return same_split and not recorded.changes(self.listed, self.store, self.targets)

    def _open_drawn(self, cases: list[Case], tolerant: bool) -> None:
        """Draw the split and open the store of what it needs."""
        self.split = self._split(cases, tolerant)
        limits, chosen = {} if self.unsplit else self.limits, False
        if self.patch_sampling is None and limits:  # whole pictures: dropped ones need not be read
            rows, limits = rows_of_splits(Index.of_cases(cases), self.split, self.split_rule, limits), {}
            cases, chosen = [cases[row] for row in np.sort(np.concatenate(list(rows.values()))).tolist()], True
        self._open_store(cases)
        self.targets = self._targets(cases)
        self.rows = rows_of_splits(self.store.index, self.split, self.split_rule, limits, chosen)

    def _open_recorded(self, cases: list[Case], recorded: RecordedSplit) -> None:
        """Open the store of the recorded cases and look up their rows.

        Raises:
            UserError: the data set is not as it was and no change was accepted, or nothing is left of it.
        """
        self._refuse_changes(recorded.changes(self.listed))  # before anything is read
        stored = recorded.stored
        cases = [case for case in cases if case.id in stored]
        if not cases:
            raise UserError(
                f"{self.folder}: none of the {len(stored)} pictures of the run is here; say --data-root DIR"
            )
        self._open_store(cases)
        self.targets = self._targets(cases)
        self.changes = recorded.changes(self.listed, self.store, self.targets)
        self._refuse_changes(self.changes)
        self.split = {entry.case: entry.split for entry in recorded.entries.values()}
        self.rows = recorded.rows(self.store.index, supervised=self.labelling is not None)

    def _refuse_changes(self, changes: Changes) -> None:
        if changes and not self._accept_changes:
            raise UserError(
                f"{self.folder}: the data are not those that the run began with: {changes}; if they lie elsewhere say "
                "--data-root DIR, to go on with what is left of them in the recorded split --accept-changed-data"
            )

    def _grouped(self, cases: Sequence[Case]) -> list[Case]:
        """Return the cases with the patients that are left when those whose pictures are alike are one."""
        pictures: dict[str, np.ndarray] = {}
        for case in cases:
            with suppress(UserError):  # an unreadable picture resembles none; the store says what is wrong with it
                pictures[case.id] = likeness.standardised(self.compared(case)[None])[0]
        facts = ([getattr(case, name) for case in cases] for name in ("id", "label", "patient"))
        patients, self.grouping = likeness.grouped(pictures, *facts)
        return [replace(case, patient=patient) for case, patient in zip(cases, patients, strict=True)]

    def compared(self, case: Case) -> Tensor:
        """Return the picture of a case by which `data.group=likeness` compares it, float32 [C, *S]."""
        return torch.from_numpy(np.asarray(self.read(replace(case, mask=None)).pixels, np.float32))

    def _open_store(self, cases: Sequence[Case]) -> None:
        self.store_plan = plan = self.plan(cases)
        self.store: Store | LazyStore
        if self.stored:
            self.store = open_or_build(plan, self.store_dir, self.on_bad)
        else:
            self.store = LazyStore(plan, self.folder)
            self.store_plan = self.store.plan  # which keeps the cases in less memory

    def _split(self, cases: Sequence[Case], tolerant: bool) -> dict[str, str]:
        """Return the split of every case id, from the user's file or drawn."""
        rule = replace(self.split_rule, folds=0, fold=0) if self.folded else self.split_rule
        if rule.by == "image":
            cases = [replace(case, patient=case.id) for case in cases]
        try:
            if rule.file is not None:
                refuse_folds(self.split_rule, f"data.split.file={rule.file} is a split")
                if rule.contamination and not rule.within:
                    raise UserError(
                        f"data.split.contamination={rule.contamination}: data.split.file={rule.file} says who trains, "
                        "and lists no anomalous case there; leave one of the two out"
                    )
                split = split_by_file(cases, Path(rule.file), rule.within or rule.supervised)
                return split if self.labelling is None else self._of_classes(cases, split)
            if self.labelling is not None:
                split = self._of_classes(cases, split_supervised(cases, rule, self.labelling))
            else:
                split = split_by_seed(cases, rule)
            if self.users_split and rule.by == "patient":
                refuse_divided(self.folder, split, self.declared)  # whom nobody named may cross where they look alike
            return split
        except UserError as error:
            if not tolerant or rule.file is not None:
                raise
            self.unsplit = str(error)
            return {case.id: "" for case in cases}

    def _of_classes(self, cases: Sequence[Case], split: dict[str, str]) -> dict[str, str]:
        """Return the split without the cases of none of the classes, which are counted."""
        assert self.labelling is not None
        labels = Coded.of_cases(cases)
        self.labelling.refuse_absent(labels)
        self.other_classes = self.labelling.left_out(labels)
        kept = self.labelling.keeps(labels).tolist()
        return {case.id: split[case.id] if keep else "" for case, keep in zip(cases, kept, strict=True)}

    def _targets(self, cases: Sequence[Case]) -> np.ndarray | None:
        """Return the class targets of every row of the store, int8 [N, K]: -1 is unknown; None without supervision."""
        if self.labelling is None:
            return None
        unknown = {case.id: case.unknown for case in cases if case.unknown}
        columns = self.store.index.columns
        facts = zip(self.store.labels.tolist(), columns["class_name"], columns["case"], strict=True)
        labels = Coded.of(Labels(label, class_name, unknown.get(case, ())) for label, class_name, case in facts)
        return self.labelling.targets(labels)

    @property
    def learns_each_class(self) -> bool:
        """Whether a case may be of several classes, each of which is learnt: then `cases` has to name all of them."""
        return self.labelling is not None and self.labelling.multilabel

    def class_counts(self, split: str = "train") -> np.ndarray:
        """Return how many rows of a split are of each class and how many are not, [K, 2]; the unknown are in neither.

        Args:
            split: "train", "val" or "test".
        """
        assert self.targets is not None, "without data.supervision=labels there are no classes"
        targets = self.targets[whole(self.rows)[split]]
        return np.stack([(targets == 1).sum(0), (targets == 0).sum(0)], axis=1)

    @property
    def scored(self) -> dict[str, np.ndarray]:
        """The rows that are scored, by their lists in `rows`: validation normals, labelled anomalies, test cases."""
        return {name: self.rows[name] for name in ("val", "val_anomalous", "test") if name in self.rows}

    @property
    def caveats(self) -> tuple[str, ...]:
        """Warnings to print wherever numbers on these data appear, of the reproduction switches that are on."""
        return (CROSSING,) if self.split_rule.by == "image" else ()

    def check_trainable(self, phases: Iterable[Phase] = (Phase("fit", 1, ()),), world_size: int = 1) -> None:
        """Check that mini-batches can be made of the cases that the phases of a training draw.

        Args:
            phases: of the detector; by default one that draws normals.
            world_size: number of processes that share a mini-batch.

        Raises:
            UserError: there are fewer cases than `batch_size`, the processes cannot share it equally, a phase draws
                anomalies without `data.supervision=labels`, or a class has no training case that is known to be of it,
                or not to be.
        """
        if self.batch_size % world_size:
            raise UserError(
                f"data.batch_size={self.batch_size} is not divisible by {world_size} processes; use a multiple of it"
            )
        for phase in phases:
            cases, (rows, anomalous) = phase.cases, self._drawn_from(phase)
            count = len(rows) if anomalous is None else 2 * len(anomalous)
            if count < self.batch_size or not len(rows):
                what = {"normal": "normals", "all": "cases", "balanced": "cases, as many normal as anomalous ones,"}[
                    cases
                ]
                raise UserError(
                    f"data.batch_size={self.batch_size}: only {count} {what} train; set it to at most that number"
                )
            if cases != "normal":
                self._refuse_one_sided()

    def check_judged(self) -> None:
        """Check that there are test cases, so that a training does not end without a result.

        Raises:
            UserError: there are none.
        """
        if not len(self.rows["test"]):
            raise UserError(
                f"{self.folder}: no case is in the split test, so nothing could be judged in the end; name the folder, "
                "or the split of entries, test, or set data.split.file"
            )

    def _refuse_one_sided(self) -> None:
        """Raise UserError if a class cannot be learnt, because no training case is known to be of it, or all are."""
        for name, (yes, no) in zip(self.classes, self.class_counts().tolist(), strict=True):
            if not yes or not no:
                fault = "no training case is" if not yes else "every training case that is known is"
                unknown = "" if yes or no else ": of all of them it is unknown"
                raise UserError(
                    f"data.classes: {fault} of class {name!r}{unknown}; leave it out, or change data.split or "
                    "data.limits"
                )

    def _drawn_from(self, phase: Phase) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the rows that a phase draws all of in each pass, and those it balances with others, if it does."""
        if phase.cases == "normal":
            return self._shared(self.rows["train"], phase), None
        if self.labelling is None:
            raise UserError(
                f"a phase of the training draws {phase.cases} cases, labelled ones; set data.supervision=labels"
            )
        if phase.cases == "all":
            return self._shared(whole(self.rows)["train"], phase), None
        return self._shared(self.rows["train"], phase), self._shared(self.rows["train_anomalous"], phase)

    def _shared(self, rows: np.ndarray, phase: Phase) -> np.ndarray:
        """Return those of the training rows that belong to the phase's share of the patients."""
        if phase.share == (0.0, 1.0):
            return rows
        everyone = whole(self.rows)["train"]
        patients = np.array(self.store.index.columns["patient"])[everyone]
        classes = self.store.labels[everyone][:, None] if self.targets is None else self.targets[everyone]
        chosen = everyone[in_share(patients, classes == 1, phase.share, self.seed)]
        return rows[np.isin(rows, chosen)]

    def plan(self, cases: Sequence[Case]) -> StorePlan:
        """Return the plan of the store of these cases."""
        reading = {name: value for name, value in vars(self.picture).items() if value != getattr(Rules(), name, value)}
        versions = {"version": self.version, "readers": READERS}
        crop = {} if self.cropping == "none" else {"crop_to": self.cropping, "crops": CROPS}
        protocol = {"class": type(self).__qualname__, **versions, **reading, **crop, **self.protocol()}
        first = bool(cases) and is_deep(cases[0].image)  # without a store, all files are assumed to be like the first
        return StorePlan(
            name=self.name,
            root=self.folder,
            cases=cases,
            read=self.read_cropped,
            preprocessing=self.preprocessing,
            patch_sampling=self.patch_sampling,
            patch_size=self.patch_size,
            in_channels=self.in_channels,
            deep=is_deep if self.stored else lambda _: first,
            protocol=protocol,
        )

    def _listed(self) -> list[Case]:
        """Return the cases, after comparing their counts with those of the official data set."""
        cases = self.cases(self.folder)
        if not cases:
            raise UserError(f"{self.folder}: the list of cases is empty; {self.where_to_get}")
        if len({case.id for case in cases}) < len(cases):
            repeated = [id for id, times in Counter(case.id for case in cases).items() if times > 1][:5]
            raise UserError(f"{self.folder}: the ids {', '.join(repeated)} appear twice; keep one of each")
        for path in (path for case in cases for path in (case.image, case.mask) if path is not None):
            if not has_plain_name(path):
                raise UserError(f"{name_of(path)}: its name is not UTF-8 or has line breaks; rename it")
        labelled = Coded.of_cases(cases)
        for number, labels in enumerate(labelled.distinct):
            labels.refuse_contradictions(cases[int(np.argmax(labelled.code == number))].id)
        self.listed = [case.id for case in cases]
        self.declared = {case.id: case.patient for case in cases}
        self.counted = self.census(cases)
        if self.source == "real" and self.counted.get("images") == self.official.get("images"):
            for name, count in self.official.items():
                if self.counted.get(name, 0) != count:
                    actual = self.counted.get(name, 0)
                    raise UserError(
                        f"{self.folder}: {actual} {name}, the official set has {count}; check whether files are missing"
                    )
        return cases

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of the rest of the current Lightning epoch.

        It yields one item per iteration, image [minibatches, B, C, *S].
        """
        training = cast("_Training", self._trainer().lightning_module)
        rank, world_size = self._rank_and_size()
        self.check_trainable(training.schedule, world_size)
        done = training.iterations_done
        epoch = range(done, training.schedule.epoch_end(done, self.epoch_length))
        self._sampler.epoch = IterationSampler(training.schedule, epoch, self.batch_size, rank, world_size)
        phase = training.schedule.phase_at(done)  # of the whole epoch, which ends where a phase does
        if (phase.cases, phase.share) != self._loaded:
            self._loaded, self._resident, self._training_loader = (phase.cases, phase.share), None, None
        rows, anomalous = self._drawn_from(phase)
        if resident := self._resident_images(rows, anomalous):
            return DataLoader(resident, batch_size=None, sampler=self._sampler)
        if self._training_loader is None:
            images = TrainingImages(self.store, rows, self.augmentation, self.seed, anomalous, self.targets)
            self._training_loader = self._loader(images, self._sampler, self.num_workers)
        return self._training_loader

    def _resident_images(self, rows: np.ndarray, anomalous: np.ndarray | None) -> ResidentImages | None:
        """Return the training images on the device that trains, if they are to lie there; they are copied once.

        Raises:
            UserError: they are to lie there by `data.store.device=always` and cannot.
        """
        if self.on_device == "never" or (self.on_device == "auto" and not torch.cuda.is_available()):
            return None
        device, augmentation = self._trainer().strategy.root_device, self.augmentation
        if self._resident is not None and self._resident.device == device:
            return self._resident
        if isinstance(self.store, LazyStore) or isinstance(augmentation, VolumeAugmentation):
            if self.on_device == "always":
                what = "volumes are augmented" if augmentation else "pictures are read at every access"
                raise UserError(f"data.store.device=always: {what} on the host; set data.store.device=auto")
            return None
        count = len(rows) + (0 if anomalous is None else len(anomalous))
        if self.on_device == "auto" and not _fits(self.store.images[:1].nbytes * count, device):
            return None
        self._resident = ResidentImages(self.store, rows, augmentation, self.seed, device, anomalous, self.targets)
        return self._resident

    def first_batches(self, rows: np.ndarray, count: int) -> Iterator[Tensor]:
        """Yield the first mini-batches [B, C, *S] of a training that draws all of some rows: in its order, augmented.

        Args:
            rows: of the store.
            count: number of mini-batches.
        """
        images = TrainingImages(self.store, rows, self.augmentation, self.seed)
        for draws in np.arange(count * self.batch_size).reshape(count, 1, self.batch_size):
            yield images[draws]["image"][0]

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of the validation normals, whose mean score is logged, and of labelled anomalies.

        It yields at most MAX_VALIDATION_IMAGES images of each kind, spread over all of it so that no few patients rule,
        and the same ones on every rank.
        """
        kinds = (self.rows["val"], self.rows.get("val_anomalous", np.empty(0, np.int64)))
        spread = [
            rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_VALIDATION_IMAGES)).astype(np.int64)]
            for rows in kinds
        ]
        batches = chunks(np.concatenate(spread), self.scoring_batch_size)
        return self._loader(ScoringImages(self.store, self.targets), batches, self._scoring_workers())

    def test_dataloader(self, whole: bool = False) -> DataLoader[Batch]:
        """Return the loader of all `scored` rows: validation normals, which set the threshold, then the test split.

        Each process gets whole batches, so that batches are the same with any number of processes; there may be none
        for it.

        Args:
            whole: give all batches to every process.
        """
        rank, world_size = (0, 1) if whole else self._rank_and_size()
        rows = np.concatenate(list(self.scored.values()))
        batches = chunks(rows, self.scoring_batch_size)[rank::world_size]
        return self._loader(ScoringImages(self.store, self.targets), batches, self._scoring_workers())

    def images(self, split: str, at_most: int | None = None) -> Iterator[Tensor]:
        """Yield the images of a split in batches [B, C, *S] in [-1, 1], without augmentation.

        Args:
            split: "train", "val" or "test"; with labels, "train_anomalous" or "val_anomalous".
            at_most: maximum number of images, drawn by the seed; None for all.
        """
        rows = self.rows[split]
        if at_most is not None and at_most < len(rows):
            rows = np.sort(stream(self.seed, "image sample").permutation(rows)[:at_most])
        batches = chunks(rows, self.scoring_batch_size)
        if not self._scoring_workers():
            yield from (to_float(self.store.images[batch]) for batch in batches)
            return
        own = torch.Generator()  # so that a loader draws its seed from no generator that a training draws from
        images = DataLoader(
            ScoringImages(self.store), batch_size=None, sampler=batches, num_workers=self.num_workers, generator=own
        )
        yield from (batch["image"] for batch in images)

    def scoring_plan(self, bits: int) -> StorePlan:
        """Return the plan by which new scans are read and cut; `setup` is not needed.

        It is that of the store, but with all windows of the grid. If `data.cut.foreground` excluded background from
        the training, windows without any foreground are left out, because the detector never saw such windows.

        Args:
            bits: bits of the stored pixels of the run, 8 or 16.
        """
        patch_sampling, trained = None, self.patch_sampling
        if trained:
            foreground = math.ulp(0.0) if trained.foreground else 0.0  # the smallest positive fraction: any foreground
            patch_sampling = PatchSampling(overlap=trained.overlap, plane=trained.plane, foreground=foreground)
        return replace(self.plan([]), patch_sampling=patch_sampling, bits=bits, read=self._read_new_cropped)

    def _read_new_cropped(self, case: Case) -> Scan:
        return cropped(self.read_new(case), self.cropping)

    def facts(self) -> dict[str, Any]:
        """Return the facts about the data for the record and the report."""
        return facts_of(self)

    def _choose(self, root: Path, source: str) -> tuple[Literal["real", "twin"], Path]:
        if source != "twin" and root.exists():
            return "real", root
        if source == "real":
            raise UserError(f"{root}: no such folder (data.root); {self.where_to_get}; or set data.source=twin")
        twin = f"{self.name}-v{self.twin_version}-seed{self.twin.seed}-{self.twin.size}"
        return "twin", self.store_dir / "twins" / twin

    def _make_twin(self) -> None:
        with disk_errors(self.store_dir), locked(self.store_dir, f"{self.name}-twin"):
            if not self.folder.exists():
                with fresh_folder(self.folder) as work:
                    self.write_twin(work, self.twin.seed, self.twin.size)

    def _loader(self, images: Dataset[Batch], sampler: Any, num_workers: int) -> DataLoader[Batch]:
        pin = torch.cuda.is_available()
        return DataLoader(
            images,
            batch_size=None,
            sampler=sampler,
            num_workers=num_workers,
            pin_memory=pin,
            persistent_workers=num_workers > 0 and sampler is self._sampler,
        )

    def _scoring_workers(self) -> int:
        """Return the number of processes that load evaluation batches: none with a store, where loading is indexing."""
        return 0 if self.stored else self.num_workers

    def _rank_and_size(self) -> tuple[int, int]:
        """Return the rank of this process and the number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _trainer(self) -> pl.Trainer:
        if self.trainer is None:
            raise RuntimeError(
                "training batches depend on the detector's schedule: attach the data module to a Trainer"
            )
        return self.trainer


def _fits(num_bytes: int, device: torch.device) -> bool:
    """Return whether so many bytes are a small part of a GPU's free memory."""
    return device.type == "cuda" and num_bytes <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]


def data_of(trainer: pl.Trainer) -> PatchDataModule:
    """Return the data module of a Trainer.

    Examples:
        >>> from types import SimpleNamespace
        >>> data_of(SimpleNamespace(datamodule="the data module"))
        'the data module'
    """
    data: PatchDataModule = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning, missing in its types
    return data


def roots(path: Path, source: Path) -> Iterator[Path]:
    """Yield the folders above a file up to `source`, any of which may be laid out as the root of a data set.

    Examples:
        >>> [root.as_posix() for root in roots(Path("new/p1/a.png"), Path("new"))]
        ['new/p1', 'new']
    """
    for folder in path.parents:
        if not folder.is_relative_to(source):
            return
        yield folder
