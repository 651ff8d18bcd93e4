"""What every data set promises, asked of every class in the folder on its synthetic twin: a new one is asked, too.

Each `check_…` takes a data set and the folder of its files, so the toys at the end can show that it fails when it must.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from discovery import below, experiment_of, gaps, undescribed
from omegaconf import OmegaConf
from PIL import Image

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.datasets.dicom import Dicom
from anomaly_lab.data.datasets.folder import Folder
from anomaly_lab.data.datasets.headct import HeadCT
from anomaly_lab.data.datasets.isic2016 import ISIC2016
from anomaly_lab.data.datasets.nifti import Nifti
from anomaly_lab.data.readers.files import is_deep
from anomaly_lab.data.readers.nifti import is_nifti
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.readers.tree import is_seen
from anomaly_lab.data.splitting.recorded import RecordedSplit
from anomaly_lab.data.splitting.rows import whole
from anomaly_lab.data.splitting.splits import SPLITS, split_by_seed
from anomaly_lab.experiment import config
from anomaly_lab.types import Case, Phase, UserError

SIZE = 60  # of a twin
PATIENCE = 20.0  # seconds, after which something waits
CLASSES = below("anomaly_lab.data.datasets", PatchDataModule)
every_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores and lists that a data set keeps go nowhere else."""
    monkeypatch.chdir(tmp_path)


def made(kind: type[PatchDataModule], root: Path, words: Sequence[str] = ()) -> PatchDataModule:
    """With the settings of its experiments, for the files in `root`."""
    section = config.load(experiment_of("data", kind), ["budget=smoke", f"data.root={root}", *words]).data
    data: PatchDataModule = config.build(section)
    return data


def twin_of(kind: type[PatchDataModule], root: Path) -> PatchDataModule:
    """The data set on a twin that has been written to `root`."""
    root.mkdir()
    made(kind, root).write_twin(root, seed=0, size=SIZE)
    return made(kind, root)


def test_the_folder_holds_data_sets() -> None:
    assert len(CLASSES) >= 15
    assert len({kind.name for kind in CLASSES}) == len(CLASSES)


@every_class
def test_nothing_is_missing(kind: type[PatchDataModule]) -> None:
    """One that others derive from is not asked: its name begins with an underscore."""
    assert not gaps(kind), f"{kind.__name__} lacks methods"
    assert kind.name, f"{kind.__name__} lacks `name`"
    assert kind.where_to_get, f"{kind.__name__} lacks `where_to_get`"


@every_class
def test_every_argument_has_a_type_and_a_description(kind: type[PatchDataModule]) -> None:
    assert not undescribed(kind), kind.__name__


@every_class
def test_what_a_data_set_promises(kind: type[PatchDataModule], tmp_path: Path) -> None:
    root = tmp_path / "Müller's files"  # no data set may stumble over blanks and umlauts
    data = twin_of(kind, root)
    check_identities(data, root)
    check_labels(data, root)
    check_patients_stay_in_one_split(data, root)
    check_order(data, root)
    check_scans(data, root)
    check_census(data, root)
    check_twin(data, root)
    check_pipes(data, root)
    check_litter(data, root)


@pytest.mark.parametrize("kind", [HeadCT, Folder, ISIC2016, Nifti, Dicom], ids=lambda kind: kind.__name__)
def test_what_a_data_set_promises_cropped(kind: type[PatchDataModule], tmp_path: Path) -> None:
    """Pictures, and volumes with their geometry; the store is another one, and that of whole scans keeps its name."""
    root = tmp_path / "files"
    whole_scans = twin_of(kind, root)
    data = made(kind, root, ["data.crop=foreground"])
    cases = data.cases(root)
    assert data.plan(cases).key != whole_scans.plan(cases).key
    assert "crop_to" not in whole_scans.plan(cases).protocol
    smaller = 0
    for case in cases[::7]:
        before, scan = data.read(case), data.read_cropped(case)
        assert (scan.mask is None) == (before.mask is None)
        assert scan.mask is None or scan.mask.shape[1:] == scan.shape
        smaller += scan.shape != before.shape
        if scan.affine is not None and before.affine is not None:
            assert scan.own_grid.shape == before.shape
            assert np.array_equal(scan.own_grid.affine, before.affine)
    data.setup("inspect")
    assert np.isfinite(data.store.batch(np.arange(2))["image"].numpy()).all()
    assert smaller or any("not cropped" in remark for remark in data.facts()["remarks"])


@pytest.mark.slow
def test_another_process_lists_the_same(tmp_path: Path) -> None:
    """The order of a set is another one in every process."""
    for kind in CLASSES:
        twin_of(kind, tmp_path / kind.name)
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['listing'](sys.argv[2]))"
    said = []
    for seed in "12":
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        words = [sys.executable, "-c", code, __file__, str(tmp_path)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        said.append(json.loads(done.stdout.splitlines()[-1]))
    assert said[0].keys() == {kind.name for kind in CLASSES}
    assert [name for name, ids in said[0].items() if ids != said[1][name]] == []


def listing(twins: str) -> str:
    """Ids of every data set in the order of its list, as JSON."""
    roots = {kind: Path(twins) / kind.name for kind in CLASSES}
    return json.dumps({kind.name: [case.id for case in made(kind, root).cases(root)] for kind, root in roots.items()})


def check_identities(data: PatchDataModule, root: Path) -> None:
    """Every case has an id of its own, a patient and an image that is there."""
    cases = data.cases(root)
    assert len({case.id for case in cases}) == len(cases) > 0
    assert all(case.id and case.patient for case in cases)
    assert all(path.is_file() for case in cases for path in (case.image, *case.slices))


def check_labels(data: PatchDataModule, root: Path) -> None:
    """There are both labels; where patients' healthy parts train, all lesions are known and normals may be missing."""
    cases = data.cases(root)
    if data.split_rule.within:
        assert {case.label for case in cases} in ({1}, {0, 1})
        assert all(case.mask for case in cases if case.label == 1)
    else:
        assert {case.label for case in cases} == {0, 1}


def check_patients_stay_in_one_split(data: PatchDataModule, root: Path) -> None:
    """By the owners' split as by the drawn one, where normals alone train and both kinds are judged."""
    cases, rule = data.cases(root), replace(data.split_rule, train_normals=0.75)
    split = split_by_seed(cases, rule)
    assert {case.split for case in cases} <= {None, *SPLITS}
    for of_case in ({case.id: case.split for case in cases}, split):
        places = defaultdict(set)
        for case in cases:
            if of_case[case.id]:
                places[case.patient].add(of_case[case.id])
        torn = {patient: names for patient, names in places.items() if len(names) > 1}
        assert not torn
    assert set(SPLITS) <= set(split.values())
    if not rule.within:
        labels = {name: {case.label for case in cases if split[case.id] == name} for name in SPLITS}
        assert labels == {"train": {0}, "val": {0}, "test": {0, 1}}


BINARY = ["data.classes=[normal,anomalous]", "data.target_type=multiclass"]


@every_class
def test_what_a_data_set_promises_with_labels(kind: type[PatchDataModule], tmp_path: Path) -> None:
    root = tmp_path / "files"
    root.mkdir()
    made(kind, root).write_twin(root, seed=0, size=SIZE)
    one_class = made(kind, root)
    one_class.setup("inspect")
    check_no_anomaly_trains_without_labels(one_class)
    for classes in ([], BINARY) if one_class.target_type == "multilabel" else (BINARY,):
        words = ["data.supervision=labels", "data.limits=null", "data.batch_size=2", *classes]
        check_labels_that_train(made(kind, root, words), made(kind, root, [*words, "data.seed=1"]))


def check_no_anomaly_trains_without_labels(data: PatchDataModule) -> None:
    """They have no list from which a phase could draw, no target, and are not in the lists there are."""
    assert set(data.rows) == set(SPLITS)
    assert data.targets is None
    for cases in ("balanced", "all"):
        with pytest.raises(UserError, match=r"set data\.supervision=labels"):
            data.check_trainable([Phase("fit", 1, (), cases=cases)])  # type: ignore[arg-type]
    assert not data.store.labels[data.rows["train"]].any()
    assert not data.store.labels[data.rows["val"]].any()


def check_labels_that_train(data: PatchDataModule, other: PatchDataModule) -> None:
    """Both kinds are in each split, targets agree with labels, no patient crosses, and a record gives the same rows."""
    data.setup()
    labels, targets, rows = data.store.labels, data.targets, whole(data.rows)
    assert data.labelling is not None
    assert targets is not None
    assert all({0, 1} == set(labels[members].tolist()) for name, members in rows.items() if name != "val")
    for name in ("train", "val"):
        assert not labels[data.rows[name]].any()
        assert labels[data.rows[f"{name}_anomalous"]].all()
    patients = np.array(data.store.index.columns["patient"])
    of_split = [set(patients[members].tolist()) for members in rows.values()]
    assert not any(one & two for one, two in combinations(of_split, 2))
    assert sum(map(len, rows.values())) == len(set(np.concatenate(list(rows.values())).tolist()))
    used = np.concatenate(list(rows.values()))
    if data.labelling.multilabel:
        assert not (targets[used] == 1)[labels[used] == 0].any()
        assert data.class_counts()[:, 0].all(), "a class of the experiment is not trained on the twin"
    else:
        assert (targets[used].sum(1) == 1).all()
        assert np.array_equal(targets[used][:, 0] == 1, labels[used] == 0)  # the first class is normal
    for phase in ("normal", "balanced", "all"):
        data.check_trainable([Phase("fit", 1, (), cases=phase)])  # type: ignore[arg-type]
    other.pin(RecordedSplit(data.record().entries))
    other.setup()
    assert not other.changes
    assert all(np.array_equal(data.rows[name], other.rows[name]) for name in data.rows)
    counts = data.facts()["classes"]["counts"]
    assert {split: sum(next(iter(of.values())).values()) for split, of in counts.items()} == {
        split: len(members) for split, members in rows.items()
    }


def check_order(data: PatchDataModule, root: Path) -> None:
    """The list is the same every time, in whatever order the disk gives its files."""
    cases = data.cases(root)
    assert data.cases(root) == cases, "a second call lists something else: sort, and keep no state"
    for order in (reversed, lambda names: random.Random(0).sample(names, len(names))):
        with listed_in(order):
            assert data.cases(root) == cases, "the cases follow the order of the disk: sort what a listing gives"


def check_scans(data: PatchDataModule, root: Path) -> None:
    """Every case is read, its mask has its shape, shows something of an anomalous one and nothing of a normal one."""
    for case in data.cases(root):
        scan = data.read(case)
        assert np.isfinite(scan.pixels).all()
        assert scan.pixels.min() < scan.pixels.max()
        assert len(scan.pixels) == (data.in_channels if scan.affine is None else 1)
        assert len(scan.shape) == (2 if scan.affine is None else 3)
        for part in (scan.mask, scan.foreground):
            assert part is None or (part.dtype == bool and part.shape == (1, *scan.shape))
        if case.mask is not None:
            assert case.mask.is_file()
            assert scan.mask is not None
        if scan.mask is not None:
            assert scan.mask.any() == case.label


def check_census(data: PatchDataModule, root: Path) -> None:
    """It counts the cases, or more where some of the official set are not used; and all that `official` is about."""
    cases = data.cases(root)
    counts, listed = data.census(cases), PatchDataModule.census(data, cases)
    assert set(data.official) <= {*counts, *listed}
    assert all(counts[name] >= listed[name] for name in counts.keys() & listed.keys())
    if counts["images"] == len(cases):
        assert all(counts.get(name, listed[name]) == listed[name] for name in ("normal", "anomalous"))
    if {"normal", "anomalous"} <= counts.keys():
        assert counts["normal"] + counts["anomalous"] == counts["images"]


def check_twin(data: PatchDataModule, root: Path) -> None:
    """The seed of `root`, 0, writes the same bytes once more, another one other pictures."""
    one, again, other = files_of(root), *(files_of(written(data, root, seed)) for seed in (0, 1))
    assert one == again
    assert sum(content == other.get(name) for name, content in one.items()) < len(one) / 2


def check_pipes(data: PatchDataModule, root: Path) -> None:
    """A pipe in the place of a file is refused by its name, or changes nothing; it is never waited for."""
    cases = data.cases(root)
    used = {path for case in cases for path in (case.image, case.mask, *case.slices)}
    files = sorted((path for path in root.rglob("*") if path.is_file()), key=lambda path: (path not in used, path))
    kinds = {re.sub(r"\d+", "", path.relative_to(root).as_posix()): path for path in reversed(files)}
    for path in kinds.values():
        path.rename(path.with_name(".kept"))
        os.mkfifo(path)
        with impatient():
            said = said_of(path, data, root, cases)
        assert all(path.name.removesuffix(".gz") in line for line in said), said
        path.with_name(".kept").replace(path)


def said_of(path: Path, data: PatchDataModule, root: Path, whole: list[Case]) -> list[str]:
    """How the listing is refused; else how each case that has the file is, "" if it is read."""
    try:
        cases = data.cases(root)
    except UserError as error:
        return [str(error)]
    known_by_name = not isinstance(data, Dicom)
    assert cases == whole or not known_by_name, f"{path} is missing in silence"
    said = []
    for case in (case for case in cases if path in (case.image, case.mask, *case.slices)):
        assert is_deep(path) in (False, is_nifti(path))
        try:
            data.read(case)
            said.append("")
        except UserError as error:
            said.append(str(error))
    return said


@contextmanager
def impatient() -> Iterator[None]:
    """Break off what waits for a pipe."""

    def broken_off(*_: object) -> None:
        raise WaitedError

    former = signal.signal(signal.SIGALRM, broken_off)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    except WaitedError:
        raise AssertionError("a pipe was waited for: read what experiment.regular lets pass") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


class WaitedError(BaseException):
    """A pipe was waited for; readers that refuse whatever an Exception says do not take it for a damaged file."""


def check_litter(data: PatchDataModule, root: Path) -> None:
    """What Macs, Windows and NAS boxes leave beside files changes nothing; litters `root`, so it comes last."""
    cases = data.cases(root)
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for path in sorted(path for path in folder.iterdir() if path.is_file())[:3]:
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
            (folder / "@eaDir" / path.name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (9, 9)).save(folder / "@eaDir" / path.name / "SYNOPHOTO_THUMB_M.jpg")
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(b"no picture")
    try:
        found = data.cases(root)
    except (UserError, ValueError) as error:
        raise AssertionError("a file that is none of the data set's") from error
    assert found == cases
    assert not {"._", ".ds_store", ".db", ".ini"} & data.left_out.keys()


def written(data: PatchDataModule, root: Path, seed: int) -> Path:
    """A twin beside the one in `root`."""
    folder = root.with_name(f"{root.name} {seed}")
    folder.mkdir()
    data.write_twin(folder, seed, SIZE)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def listed_in(order: Any) -> Iterator[None]:
    """Folders are listed in the order that `order` makes of a list."""
    scandir, listdir = os.scandir, os.listdir

    class Entries:
        def __init__(self, path: Any = ".") -> None:
            with scandir(path) as entries:
                self.entries = iter(list(order(list(entries))))

        def __iter__(self) -> Iterator[Any]:
            return self.entries

        def __next__(self) -> Any:
            return next(self.entries)

        def __enter__(self) -> "Entries":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def close(self) -> None:
            pass

    def of(method: Any) -> Any:
        return lambda *arguments, **named: iter(order(list(method(*arguments, **named))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", Entries)
        patch.setattr(os, "listdir", lambda path=".": list(order(listdir(path))))
        for name in ("iterdir", "glob", "rglob"):
            patch.setattr(Path, name, of(getattr(Path, name)))
        yield


# --- the contract itself ---------------------------------------------------------------------------------------------


class Marks(PatchDataModule):
    """Keeps the contract; those below break one clause each. Names of files: <patient>-<number>-<label>.png."""

    name = "marks"
    where_to_get = "nowhere"

    def cases(self, root: Path) -> list[Case]:
        return [self.case(path) for path in self.listed(root / "pictures")]

    def listed(self, folder: Path) -> Sequence[Path]:
        return sorted(path for path in folder.iterdir() if is_seen(path.name))

    def case(self, path: Path) -> Case:
        patient, _, label = path.stem.split("-")
        mask = path.parents[1] / "masks" / path.name
        return Case(path.stem, patient, path, int(label), mask if label == "1" else None)

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        rng = np.random.default_rng(seed)
        for folder in ("pictures", "masks"):
            (root / folder).mkdir()
        for number in range(size):
            pixels, label = rng.integers(0, 200, (12, 10), np.uint8), int(number >= size // 2)
            name = f"{number // 2:03d}-{number:03d}-{label}.png"
            if label:
                pixels[2:5, 3:6] = 255
                Image.fromarray((pixels == 255).astype(np.uint8) * 255).save(root / "masks" / name)
            Image.fromarray(pixels).save(root / "pictures" / name)


class Nameless(Marks):
    name = None


class FromNowhere(Marks):
    where_to_get = ""


class Twinless(Marks):
    write_twin = PatchDataModule.write_twin


class Unlisted(Marks):
    cases = PatchDataModule.cases


class OneIdTwice(Marks):
    def case(self, path: Path) -> Case:
        return replace(super().case(path), id=path.stem[:3])


class NobodysPicture(Marks):
    def case(self, path: Path) -> Case:
        return replace(super().case(path), patient="")


class OneLabel(Marks):
    def case(self, path: Path) -> Case:
        return replace(super().case(path), label=0, mask=None)


class TornPatient(Marks):
    """The owners' split of the pictures tears the second patient, whose pictures are numbers 2 and 3."""

    def case(self, path: Path) -> Case:
        case = super().case(path)
        return replace(case, split="test" if case.label or int(path.stem[4:7]) <= 2 else "train")


class UnsortedListing(Marks):
    def listed(self, folder: Path) -> Sequence[Path]:
        return list(folder.iterdir())


class UnsortedGlob(Marks):
    def listed(self, folder: Path) -> Sequence[Path]:
        return list(folder.glob("*.png"))


class UnsortedWalk(Marks):
    def listed(self, folder: Path) -> Sequence[Path]:
        return [Path(where, name) for where, _, names in os.walk(folder) for name in names]


class LooksAtEverything(Marks):
    def listed(self, folder: Path) -> Sequence[Path]:
        return sorted(folder.glob("*.png"))


class OtherEveryTime(Marks):
    times = 0

    def listed(self, folder: Path) -> Sequence[Path]:
        self.times += 1
        return super().listed(folder)[:: -1 if self.times % 2 else 1]


class MaskOfAnotherSize(Marks):
    def read(self, case: Case) -> Scan:
        scan = super().read(case)
        return scan if scan.mask is None else replace(scan, mask=scan.mask[:, 1:])


class EmptyMask(Marks):
    def read(self, case: Case) -> Scan:
        scan = super().read(case)
        return scan if scan.mask is None else replace(scan, mask=np.zeros_like(scan.mask))


class LesionOfANormal(Marks):
    def read(self, case: Case) -> Scan:
        scan = super().read(case)
        return scan if case.label else replace(scan, mask=scan.pixels[:1] > 150)


class LostMask(Marks):
    def read(self, case: Case) -> Scan:
        return replace(super().read(case), mask=None)


class WaitsForPipes(Marks):
    def read(self, case: Case) -> Scan:
        case.image.read_bytes()
        return super().read(case)


class PassesOverPipes(Marks):
    def listed(self, folder: Path) -> Sequence[Path]:
        return [path for path in super().listed(folder) if path.is_file()]


class Unseeded(Marks):
    def write_twin(self, root: Path, seed: int, size: int) -> None:
        super().write_twin(root, random.SystemRandom().randrange(2**32), size)


class SeedOfNoUse(Marks):
    def write_twin(self, root: Path, seed: int, size: int) -> None:
        super().write_twin(root, 0, size)


class Miscounted(Marks):
    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        return super().census(cases) | {"normal": 1}


class OfficialCountsOfNothing(Marks):
    official: ClassVar[dict[str, int]] = {"images": 900, "volunteers": 7}


def toy(kind: type[Marks], root: Path) -> tuple[Marks, Path]:
    root.mkdir()
    data = kind(root=str(root))
    data.write_twin(root, 0, SIZE)
    return data, root


CHECKS = (check_identities, check_labels, check_patients_stay_in_one_split, check_order, check_scans, check_census,
          check_twin, check_pipes, check_litter)  # fmt: skip


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Nameless, "Nameless lacks `name`"),
        (FromNowhere, "FromNowhere lacks `where_to_get`"),
        (Twinless, "Twinless lacks write_twin"),
        (Unlisted, "Unlisted lacks cases"),
    ],
)
def test_an_incomplete_class_is_refused_in_one_line(kind: type[Marks], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        config.build(OmegaConf.create({"_target_": f"{__name__}.{kind.__name__}", "root": "marks"}))
    assert "\n" not in str(refused.value)


def test_an_unsorted_listing_is_told_to_sort(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="sort what a listing gives"):
        check_order(*toy(UnsortedListing, tmp_path / "marks"))


def test_a_data_set_without_an_experiment_is_told_where_to_add_it() -> None:
    with pytest.raises(LookupError, match=r"no experiment has Marks: add experiments/datasets/<name>\.yaml"):
        experiment_of("data", Marks)


@pytest.mark.parametrize("check", CHECKS)
def test_who_keeps_the_contract_passes(check: Any, tmp_path: Path) -> None:
    check(*toy(Marks, tmp_path / "marks"))


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (OneIdTwice, check_identities),
        (NobodysPicture, check_identities),
        (OneLabel, check_labels),
        (TornPatient, check_patients_stay_in_one_split),
        (UnsortedListing, check_order),
        (UnsortedGlob, check_order),
        (UnsortedWalk, check_order),
        (OtherEveryTime, check_order),
        (MaskOfAnotherSize, check_scans),
        (EmptyMask, check_scans),
        (LesionOfANormal, check_scans),
        (LostMask, check_scans),
        (Unseeded, check_twin),
        (SeedOfNoUse, check_twin),
        (Miscounted, check_census),
        (OfficialCountsOfNothing, check_census),
        (WaitsForPipes, check_pipes),
        (PassesOverPipes, check_pipes),
        (LooksAtEverything, check_litter),
    ],
)
def test_who_breaks_a_clause_is_found_out(
    kind: type[Marks], check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is WaitsForPipes:
        monkeypatch.setitem(globals(), "PATIENCE", 1.0)
    data, root = toy(kind, tmp_path / "marks")
    with pytest.raises(AssertionError):
        check(data, root)
