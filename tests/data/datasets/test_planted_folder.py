"""Lesions lie on normals that are judged, the same in every run; nobody's picture trains and is judged."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data.datamodule import StoreOptions
from anomaly_lab.data.datasets.planted_folder import CAVEAT, PlantedFolder
from anomaly_lab.data.splitting.splits import Split
from anomaly_lab.types import UserError


def folder(root: Path, count: int = 12, deep: bool = False) -> Path:
    (root / "normal").mkdir(parents=True)
    for i in range(count):
        random = np.random.default_rng(i)
        grey = np.linspace(40, 200, 32) + random.normal(0, 10, (32, 32))
        pixels = (grey * 256).astype(np.uint16) if deep else grey.clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "normal" / f"p{i // 2}_{i}.png")
    return root


def data(root: Path, **more: object) -> PlantedFolder:
    return PlantedFolder(root=str(root), source="real", patient=r"(p\d+)_", patch_size=(32, 32), **more)


def test_normals_alone_can_be_judged(tmp_path: Path) -> None:
    cases = data(folder(tmp_path)).cases(tmp_path)
    judged = {case.patient for case in cases if case.label}
    assert len(judged) == 2  # a quarter of six, rounded up
    assert judged.isdisjoint(case.patient for case in cases if case.split == "train")
    assert sum(case.label for case in cases) == sum(case.split == "test" for case in cases) / 2 == 4


def test_a_plain_folder_holds_normals(tmp_path: Path) -> None:
    plain = folder(tmp_path) / "normal"
    cases = data(plain).cases(plain)
    judged = {case.patient for case in cases if case.label}
    assert len(judged) == 2
    assert {case.id for case in cases if not case.label} == {path.name for path in plain.iterdir()}
    plain.rename(tmp_path / "p1")
    with pytest.raises(UserError, match="no class is named normal"):  # nobody said that p1 holds no disease
        data(tmp_path).cases(tmp_path)


def test_patients_that_are_joined_by_their_pictures_train_or_are_judged(tmp_path: Path) -> None:
    """Who they are is found when the pictures are read, and only then is it decided who is judged."""
    folder(tmp_path, 24)
    for i in range(6):  # of one patient by its pictures, of six by their names
        shutil.copyfile(tmp_path / "normal" / "p0_0.png", tmp_path / "normal" / f"q{i}_x.png")
    one = PlantedFolder(root=str(tmp_path), source="real", patient=r"(\w\d+)_", patch_size=(32, 32), group="likeness",
                        split=Split(val_fraction=0.2), store=StoreOptions(folder=str(tmp_path / "store")))  # fmt: skip
    one.setup()
    splits: dict[str, set[str]] = {}
    for case, patient in zip(one.store.index.columns["case"], one.store.index.columns["patient"], strict=True):
        splits.setdefault(patient, set()).add(one.split[case])
    assert all("test" not in found or found == {"test"} for found in splits.values())
    assert len({one.split[f"normal/q{i}_x.png"] for i in range(6)}) == 1
    assert sorted(one.listed) == sorted(one.declared) == sorted(one.split)
    assert one.counted["images"] == len(one.listed)
    assert one.counted["planted"] == sum(case.endswith("+planted") for case in one.listed)


def test_a_run_goes_on_with_those_it_judged_whoever_is_drawn_today(tmp_path: Path, monkeypatch) -> None:
    """Of older versions, too, which drew before patients were joined."""
    root, made = folder(tmp_path / "pictures", 24), []
    words = {"patch_size": (32, 32), "group": "likeness", "store": StoreOptions(folder=str(tmp_path / "store"))}
    for seed in (0, 1):
        one = PlantedFolder(root=str(root), source="real", split=Split(val_fraction=0.2), **words)
        monkeypatch.setattr(one, "_judged", lambda patients, seed=seed: set(sorted(patients)[seed * 6 : seed * 6 + 6]))
        if made:
            one.pin(made[0].record())
        one.setup()
        made.append(one)
    assert made[0].split == made[1].split
    assert not made[1].changes


def test_labelled_anomalies_are_left_out(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "tumour").mkdir()
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "tumour" / "p9_9.png")
    assert not any("tumour" in case.id for case in data(tmp_path).cases(tmp_path))


def test_splits_of_the_folder_itself_are_kept(tmp_path: Path) -> None:
    for i, split in enumerate(("train", "test")):
        (folder(tmp_path / split) / "normal" / "p0_0.png").rename(tmp_path / split / "normal" / f"p9{i}_0.png")
    cases = PlantedFolder(root=str(tmp_path), source="real").cases(tmp_path)
    assert {case.split for case in cases if case.label} == {"test"}
    assert sum(case.label for case in cases) == 12


@pytest.mark.parametrize("supervision", ["none", "labels"])
def test_each_fold_judges_its_part(tmp_path: Path, supervision: str) -> None:
    folder(tmp_path / "data", 18)
    judged = []
    for fold in range(3):
        split = Split(folds=3, fold=fold, val_fraction=0)
        set_ = data(tmp_path / "data", split=split, supervision=supervision, store=StoreOptions(folder=str(tmp_path)))
        set_.check_split()
        set_.setup()
        judged += [set_.store.index.columns["id"][row] for row in set_.rows["test"]]
    assert len(judged) == len(set(judged)) == 36


def test_a_fold_has_its_own_lesions_whichever_was_first(tmp_path: Path) -> None:
    """With labels a picture has lesions of other kinds where it is judged than where it trains."""
    folder(tmp_path / "data", 18)

    def fold(number: int, place: str) -> PlantedFolder:
        split = Split(folds=3, fold=number, val_fraction=0)
        found = data(
            tmp_path / "data", split=split, supervision="labels", store=StoreOptions(folder=str(tmp_path / place))
        )
        found.setup()
        return found

    fold(0, "shared")
    after, alone = fold(1, "shared").store, fold(1, "own").store
    assert np.array_equal(after.images, alone.images)
    assert after.index.columns["id"] == alone.index.columns["id"]


def test_folds_of_a_split_of_the_folder_itself_are_refused(tmp_path: Path) -> None:
    for i, split in enumerate(("train", "test")):
        (folder(tmp_path / split) / "normal" / "p0_0.png").rename(tmp_path / split / "normal" / f"p9{i}_0.png")
    set_ = PlantedFolder(root=str(tmp_path), source="real", split=Split(folds=3))
    with pytest.raises(UserError, match="folds=3: the data set has an official split"):
        set_.check_split()


def test_without_normals_to_judge_it_is_an_error(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    with pytest.raises(UserError, match="no normal picture is in the split test"):
        PlantedFolder(root=str(tmp_path), source="real").cases(tmp_path)


@pytest.mark.parametrize("deep", [False, True])
def test_the_picture_is_the_normal_one_but_for_its_lesion(tmp_path: Path, deep: bool) -> None:
    set_ = data(folder(tmp_path, deep=deep))
    cases = {case.id: case for case in set_.cases(tmp_path)}
    ill = next(case for case in cases.values() if case.label)
    normal, planted, again = (set_.read(case) for case in (cases[ill.id.removesuffix("+planted")], ill, ill))
    assert planted.mask is not None
    assert planted.mask.any()
    assert planted.pixels.dtype == normal.pixels.dtype
    assert np.array_equal(planted.pixels[~planted.mask], normal.pixels[~planted.mask])
    assert (planted.pixels != normal.pixels).any()
    assert np.array_equal(planted.pixels, again.pixels)
    other = data(tmp_path, lesions_seed=1)
    assert {case.id for case in other.cases(tmp_path)} != set(cases)


def test_a_picture_on_which_nothing_can_be_planted_is_named(tmp_path: Path) -> None:
    folder(tmp_path)
    set_ = data(tmp_path, share=0.9)
    ill = next(case for case in set_.cases(tmp_path) if case.label)
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(ill.image)
    with pytest.raises(UserError, match=ill.image.name):
        set_.read(ill)


def test_the_report_says_that_no_disease_was_asked(tmp_path: Path) -> None:
    assert CAVEAT in data(folder(tmp_path)).caveats
