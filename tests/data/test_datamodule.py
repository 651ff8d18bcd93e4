from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from data_sections import sections
from PIL import Image

from anomaly_lab.data import datamodule
from anomaly_lab.data.datamodule import CROSSING, PatchDataModule
from anomaly_lab.data.datasets.folder import Folder
from anomaly_lab.data.preprocessing.volume_augmentation import VolumeAugmentation
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.types import Case, Phase, Schedule, UserError


def _items(data, fake):
    data.trainer = fake
    return list(data.train_dataloader())


def test_setup_twice_is_the_same_and_splits_are_disjoint(make):
    data = make()
    data.prepare_data()
    data.setup("fit")
    assert {name: len(rows) for name, rows in data.rows.items()} == {"train": 6, "val": 2, "test": 5}
    assert sorted(np.concatenate(list(data.rows.values())).tolist()) == list(range(13))
    assert not data.store.labels[data.rows["train"]].any()
    assert data.source == "real"


def test_epoch_holds_the_iterations_of_the_phases(make, fake_trainer):
    data = make()
    data.setup()
    shapes = [[item["image"].shape[:2] for item in _items(data, fake_trainer(done))] for done in (0, 3, 4, 7)]
    assert shapes == [[(3, 4)] * 3, [(3, 4)], [(1, 4)] * 3, [(1, 4)]]  # an epoch ends with its phase
    assert _items(data, fake_trainer(8)) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_the_same_resumed_and_under_workers(make, fake_trainer, num_workers):
    augment = {"flip": 0.5, "degrees": 10.0, "shift": 0.05, "gamma": 1.25}
    straight = make(augment=augment, epoch_length=8)
    straight.setup()
    other = make(augment=augment, epoch_length=8, num_workers=num_workers)
    other.setup()
    expected = _items(straight, fake_trainer(0))[2:]
    resumed = _items(other, fake_trainer(2))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(expected, resumed, strict=True))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_one_loader_serves_all_epochs(make, fake_trainer, num_workers):
    """Its processes are not started again at every epoch."""
    data, other = make(num_workers=num_workers), make()
    for each in (data, other):
        each.setup()
    loaders = []
    for done in (0, 3, 4, 7):
        data.trainer = fake_trainer(done)
        loader = data.train_dataloader()
        assert loader.persistent_workers == bool(num_workers)
        expected = _items(other, fake_trainer(done))
        assert len(loader) == len(expected)
        assert all(torch.equal(a["image"], b["image"]) for a, b in zip(loader, expected, strict=True))
        loaders.append(loader)
    assert len({*map(id, loaders)}) == 1


AUGMENT = {"flip": 0.5, "degrees": 10.0, "shift": 0.05, "gamma": 1.25}


@pytest.mark.parametrize("augment", [None, {"flip": 0.5}, AUGMENT])
def test_images_that_lie_on_the_device_are_the_same(make, fake_trainer, augment, monkeypatch):
    host, device = make(augment=augment), make(augment=augment, device="always")
    for data in (host, device):
        data.setup()
    asked = [_items(data, fake_trainer(done)) for data in (host, device) for done in (0, 3, 4)]
    for one, other in zip(asked[:3], asked[3:], strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a["row"], b["row"])
            assert (a["image"] - b["image"]).abs().max() <= (0 if augment != AUGMENT else 0.1)
            assert (a["image"] != b["image"]).float().mean() < 0.01
    assert device._resident is not None
    assert host._resident is None


@pytest.mark.parametrize(("free", "resident"), [(10_000, True), (1_000, False)])
def test_images_lie_on_a_gpu_that_has_room_for_them(make, fake_trainer, monkeypatch, free, resident):
    """Six pictures of 64 bytes, at most a quarter of what is free."""
    made = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**6))
    monkeypatch.setattr(datamodule, "ResidentImages", lambda *what: made.append(what[4]) or [])
    monkeypatch.setattr(datamodule, "DataLoader", lambda *what, **how: made.append("loader") or [])
    data = make()
    data.setup()
    data.trainer = fake_trainer()
    data.trainer.strategy.root_device = torch.device("cuda", 3)
    data.train_dataloader()
    assert made == ([torch.device("cuda", 3)] if resident else []) + ["loader"]


@pytest.mark.parametrize("changes", [{"device": "never"}, {"store": False}])
def test_images_stay_on_the_host(make, fake_trainer, monkeypatch, changes):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    data = make(**changes)
    data.setup()
    data.trainer = fake_trainer()
    data.trainer.strategy.root_device = torch.device("cuda", 0)
    assert data._resident_images(data.rows["train"], None) is None


def test_what_must_lie_on_the_device_and_cannot_is_refused(make, fake_trainer):
    data = make(device="always", store=False)
    data.setup()
    with pytest.raises(UserError, match=r"data\.store\.device=always: pictures are read"):
        _items(data, fake_trainer())


def test_two_ranks_see_together_what_one_sees(make, fake_trainer):
    data = make(augment={"degrees": 10.0}, scoring_batch_size=2)
    data.setup()
    alone, left, right = (_items(data, fake_trainer(0, *place)) for place in ((0, 1), (0, 2), (1, 2)))
    for whole, a, b in zip(alone, left, right, strict=True):
        assert torch.equal(whole["image"], torch.cat([a["image"], b["image"]], dim=1))
    data.trainer = fake_trainer()
    whole = [batch["row"].tolist() for batch in data.test_dataloader()]
    dealt = []
    for rank in (0, 1):
        data.trainer = fake_trainer(0, rank, 2)
        dealt.append([batch["row"].tolist() for batch in data.test_dataloader()])
    assert [whole[0::2], whole[1::2]] == dealt


def test_judged_loaders_hold_each_row_once(make):
    data = make()
    data.setup()
    rows = [row for batch in data.test_dataloader() for row in batch["row"].tolist()]
    assert rows == [*data.rows["val"], *data.rows["test"]]
    assert [batch["label"].tolist() for batch in data.val_dataloader()] == [[0, 0]]
    assert sum(len(images) for images in data.images("train")) == 6


def test_new_files_are_read_as_the_stores_were(make, headct):
    data = make()
    data.setup()
    file = headct / "head_ct" / "head_ct" / "007.png"
    cut, _ = make().scoring_plan(8).patches(Case("new", "new", file, 0))
    ((patches, _),) = cut.blocks()
    assert np.array_equal(patches, data.store.images[[7]])


def test_users_split_file_is_used(make, tmp_path):
    path = tmp_path / "split.csv"
    rows = [f"{i:03d},{'test' if i < 4 else 'val' if i < 6 else 'train'}" for i in range(13)]
    path.write_text("\n".join(["id,split", *rows]))
    data = make(splits=str(path))
    data.setup()
    assert data.rows["val"].tolist() == [4, 5]
    assert str(path) in data.facts()["split_rule"]
    with pytest.raises(UserError, match=r"folds=3: data\.split\.file=.* set folds to 0"):
        make(splits=str(path), folds=3).setup()
    with pytest.raises(UserError, match=r"contamination=0\.2: .*lists no anomalous case there"):
        make(splits=str(path), contamination=0.2).setup()


def test_missing_folder_gives_the_twin_or_refuses(make, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"nowhere: no such folder.*Kaggle"):
        make(root=nowhere, source="real")
    twin = make(root=nowhere, twin_size=24)
    assert twin.source == "twin"
    twin.setup()
    assert twin.facts()["source"] == "twin"
    assert twin.store.batch(twin.rows["test"])["mask"].any()
    other = make(source="twin", twin_size=24, seed=1)
    other.setup()
    assert other.facts()["fingerprint"] == twin.facts()["fingerprint"]
    assert other.rows["train"].tolist() != twin.rows["train"].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 7}, "only 6 normals train"),
        ({"patch_size": (8, 8, 8)}, "the scans are pictures"),
        ({"cut": {"overlap": 1.0}}, "overlap"),
        ({"folds": 3, "fold": 3}, "counted from 0"),
        ({"contamination": 0.6}, r"data\.split: contamination=0.6: takes a number in"),
    ],
)
def test_what_cannot_be_is_the_users_error(make, changes, message):
    def prepare():
        data = make(**changes)
        data.setup()
        data.check_trainable()

    with pytest.raises(UserError, match=message):
        prepare()


WRONG = [{"patch_size": (8,)}, {"in_channels": 2}, {"epoch_length": 0}, {"batch_size": 0}, {"seed": -1}]
FOR_VOLUMES = [{"augment": {"scale": 1.5}}, {"augment": {"flip": (0.5, 0.0, 0.0)}}]


@pytest.mark.parametrize("changes", [*WRONG, *FOR_VOLUMES])
def test_an_argument_out_of_range_is_refused(make, changes):
    with pytest.raises(ValueError, match=r"takes|for patches of volumes"):
        make(**changes)


def test_patches_of_volumes_are_augmented_as_volumes(make):
    data = make(patch_size=(8, 8, 8), augment={"flip": (0.5, 0.0, 0.0), "scale": 1.5})
    assert data.augmentation == VolumeAugmentation(flip=(0.5, 0.0, 0.0), scale=1.5)


def test_minibatch_that_ranks_cannot_share_is_refused(make, fake_trainer):
    data = make()
    data.setup()
    data.trainer = fake_trainer(0, 0, 3)
    with pytest.raises(UserError, match="not divisible by 3"):
        data.train_dataloader()


class Spots(PatchDataModule):
    """Twenty pictures of 24×24, each with a lesion of its own size in the first corner."""

    name = "spots"
    where_to_get = "draw them"
    official: ClassVar[dict[str, int]] = {"images": 20, "anomalous": 20}

    def __init__(self, *, brightness: int = 200, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.brightness = brightness

    def protocol(self):
        return {"brightness": self.brightness}

    def cases(self, root):
        return [Case(f"{i:02d}", f"p{i}", root / "list", 1) for i in range(20)]

    def read(self, case):
        pixels = np.random.default_rng(int(case.id)).integers(1, 100, (1, 24, 24)).astype(np.uint8)
        mask = np.zeros((1, 24, 24), bool)
        mask[:, : 4 + int(case.id) % 5, :8] = True
        return Scan(np.where(mask, np.uint8(self.brightness), pixels), mask)

    def write_twin(self, root, seed, size):
        (root / "list").touch()


@pytest.fixture
def spots(tmp_path):
    (tmp_path / "spots").mkdir()
    (tmp_path / "spots" / "list").touch()

    def make(**changes):
        cut = {"label": "mask", "lesion": 0.75}
        arguments = {"root": str(tmp_path / "spots"), "patch_size": (8, 8), "batch_size": 4, "cut": cut}
        data = Spots(**sections(**(arguments | {"store_dir": str(tmp_path / "store"), "epoch_length": 3} | changes)))
        data.setup()
        return data

    return make


def test_healthy_windows_of_training_patients_train_and_both_kinds_are_judged(spots):
    data = spots()
    case = np.array(data.store.index.columns["case"])
    sides = {name: set(case[rows]) for name, rows in data.rows.items()}
    assert {name: len(side) for name, side in sides.items()} == {"train": 13, "val": 2, "test": 5}
    assert not sides["train"] & sides["test"]
    for name in ("train", "val"):
        assert not data.store.labels[data.rows[name]].any()
        assert not data.store.masks[data.rows[name]].any()
    judged = data.store.labels[data.rows["test"]]
    assert (judged == 0).sum() == 5 * 8
    lesions = [4 + int(id) % 5 for id in sides["test"]]
    assert judged.sum() == sum(height / 8 > 0.75 for height in lesions)


def test_random_windows_train_and_the_grid_is_judged(spots):
    data = spots(cut={"label": "mask", "random": 30})
    roles = np.array(data.store.index.columns["role"])
    assert set(roles[data.rows["train"]]) == {"random"}
    assert set(roles[data.rows["val"]]) | set(roles[data.rows["test"]]) == {"grid"}
    assert len(data.rows["train"]) == 13 * 30
    assert not data.store.masks[data.rows["train"]].any()


def test_limits_draw_rows_by_the_seed(spots):
    whole = spots()
    limited = spots(limits={"train": 20, "test_normal": 0.5, "test_anomalous": 1})
    again = spots(limits={"train": 20, "test_normal": 0.5, "test_anomalous": 1})
    assert len(limited.rows["train"]) == 20
    assert set(limited.rows["train"]) < set(whole.rows["train"])
    assert np.bincount(limited.store.labels[limited.rows["test"]]).tolist() == [20, 1]
    assert all(np.array_equal(limited.rows[name], again.rows[name]) for name in limited.rows)
    assert not np.array_equal(spots(seed=1, limits={"train": 20}).rows["train"], limited.rows["train"])


def test_contamination_of_patches_hides_lesions_of_training_patients(spots):
    data = spots(cut={"label": "mask"}, contamination=0.05)
    labels = data.store.labels[data.rows["train"]]
    assert labels.mean() == pytest.approx(0.05, abs=0.01)
    assert not data.store.labels[data.rows["val"]].any()


def test_options_of_a_data_set_are_part_of_the_stores_key(spots):
    assert spots(brightness=150).store.folder != spots().store.folder


def test_set_that_claims_to_be_whole_must_agree(spots, monkeypatch):
    monkeypatch.setattr(Spots, "official", {"images": 20, "anomalous": 12})
    with pytest.raises(UserError, match="20 anomalous, the official set has 12"):
        spots()
    monkeypatch.setattr(Spots, "official", {"images": 900, "anomalous": 12})
    assert spots().facts()["census"]["images"] == 20


def test_id_that_comes_twice_is_refused(spots, monkeypatch):
    monkeypatch.setattr(Spots, "cases", lambda self, root: [Case("a", "p", root / "list", 1)] * 2)
    with pytest.raises(UserError, match="ids a appear twice"):
        spots()


def test_whole_pictures_beyond_the_limits_are_never_read(make, headct):
    data = make(batch_size=2, limits={"train": 0.5, "test_anomalous": 1})
    data.setup()
    assert len(data.store.images) == 3 + 2 + 2 + 1
    assert {name: len(rows) for name, rows in data.rows.items()} == {"train": 3, "val": 2, "test": 3}
    clean = make(batch_size=2)
    clean.setup()
    kept = {row["id"] for row in data.store.index}
    assert {clean.store.index[row]["id"] for row in clean.rows["val"]} < kept


def test_data_that_cannot_be_split_can_be_looked_at_and_not_trained_on(make):
    data = make(train_normals=10)
    with pytest.raises(UserError, match="cannot be met"):
        data.setup()
    data.setup("inspect")
    facts = data.facts()
    assert "cannot be met" in facts["unsplit"]
    assert facts["counts"]["train"] == {"normal": 0, "anomalous": 0}
    assert facts["audit"]["checked"] == 13
    with pytest.raises(UserError, match="only 0 normals train"):
        data.check_trainable()


LABELS = {"supervision": "labels", "val_fraction": 0.2, "batch_size": 2}


def _fit(cases):
    return [Phase("fit", 4, (), cases=cases)]


def test_labelled_anomalies_train_in_the_phases_that_ask_for_them(make, fake_trainer):
    data = make(**LABELS)
    data.setup()
    labels = data.store.labels
    drawn = {}
    for cases in ("normal", "balanced", "all"):
        data.trainer = fake_trainer()
        data.trainer.schedule = Schedule([Phase("fit", 40, (), cases=cases)])
        data.epoch_length = 40
        batches = list(data.train_dataloader())
        rows = torch.cat([batch["row"].ravel() for batch in batches]).numpy()
        drawn[cases] = labels[rows]
        target = torch.cat([batch["target"].flatten(0, 1) for batch in batches]).numpy()
        assert np.array_equal(target.argmax(1), labels[rows])
    assert not drawn["normal"].any()
    anomalous = len(data.rows["train_anomalous"])
    whole_passes = drawn["balanced"][: len(drawn["balanced"]) // (2 * anomalous) * 2 * anomalous]
    assert whole_passes.mean() == 0.5
    assert 0 < drawn["all"].mean() < 0.5


def test_labels_of_validation_cases_are_loaded_after_the_normals(make):
    data = make(**LABELS)
    data.setup()
    (batch,) = data.val_dataloader()
    assert batch["row"].tolist() == [*data.rows["val"], *data.rows["val_anomalous"]]
    assert batch["target"].argmax(1).tolist() == batch["label"].tolist()
    tested = torch.cat([batch["row"] for batch in data.test_dataloader()]).tolist()
    assert tested == [*data.rows["val"], *data.rows["val_anomalous"], *data.rows["test"]]
    plain = make()
    plain.setup()
    assert "target" not in next(iter(plain.test_dataloader()))


def test_of_many_validation_normals_those_scored_in_training_are_spread_over_all(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(val_fraction=0.5)
    data.setup()
    rows = data.rows["val"].tolist()
    monkeypatch.setattr(datamodule, "MAX_VALIDATION_IMAGES", 2)
    assert len(rows) > 2
    (batch,) = data.val_dataloader()
    assert batch["row"].tolist() == [rows[0], rows[-1]]


def test_without_labels_no_loader_brings_an_anomaly_before_the_test(make, fake_trainer):
    """Neither to the training nor to the validation, whatever the phases ask for."""
    data = make()
    data.setup()
    assert not any(batch["label"].any() for batch in data.val_dataloader())
    for item in _items(data, fake_trainer()):
        assert not data.store.labels[item["row"].ravel()].any()
    for cases in ("balanced", "all"):
        trainer = fake_trainer()
        trainer.schedule = Schedule(_fit(cases))
        with pytest.raises(UserError, match=r"draws \w+ cases, labelled ones; set data\.supervision=labels"):
            _items(data, trainer)


def test_class_counts_are_those_of_the_training_rows(make):
    data = make(**LABELS)
    data.setup()
    normal, anomalous = len(data.rows["train"]), len(data.rows["train_anomalous"])
    assert data.class_counts().tolist() == [[normal, anomalous], [anomalous, normal]]
    assert data.facts()["classes"]["counts"]["train"]["anomalous"] == {"yes": anomalous, "no": normal, "unknown": 0}
    assert data.facts()["counts"]["train"] == {"normal": normal, "anomalous": anomalous}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("normal", "bleeding")}, r"no case is of class 'bleeding'\. There are anomalous"),
        ({"classes": ("anomalous",), "target_type": "multiclass"}, "too few classes"),
        ({"target_type": "multilabel"}, "normal means none of the classes"),
        ({"contamination": 0.1}, "hides anomalies among normals"),
        ({"folds": 4}, "only 3 patients are of class 'anomalous'; use at most 3 folds"),
        ({"limits": {"train": 1}}, "only 2 cases, as many normal as anomalous ones, train|only 0 cases"),
        ({"batch_size": 64}, "data.batch_size=64: only"),
    ],
)
def test_what_labels_cannot_do_is_the_users_error(make, changes, message):
    def prepare():
        data = make(**(LABELS | {"batch_size": 3} | changes))
        data.setup()
        data.check_trainable(_fit("balanced"))

    with pytest.raises(UserError, match=message) as refused:
        prepare()
    assert "\n" not in str(refused.value)


def test_a_class_that_only_the_test_has_is_refused_and_one_that_only_training_has_is_named(tmp_path):
    def data(root):
        return Folder(**sections(root=str(root), patch_size=(8, 8), store_dir=str(tmp_path / "store"),
                                 supervision="labels", classes=("normal", "hole", "scratch"),
                                 batch_size=2))  # fmt: skip

    def write(root, split, name, count):
        (root / split / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(root / split / name / f"{i}.png")

    for root, splits in ((tmp_path / "a", ("train", "test")), (tmp_path / "b", ("test", "train"))):
        for split in splits:
            write(root, split, "normal", 6)
            write(root, split, "hole", 4)
        write(root, splits[0], "scratch", 4)
    named, refused = data(tmp_path / "a"), data(tmp_path / "b")
    named.setup()
    named.check_trainable(_fit("all"))
    assert named.facts()["remarks"] == ["No test case is of class scratch: nothing can be said of it there."]
    refused.setup()
    with pytest.raises(UserError, match="no training case is of class 'scratch'; leave it out"):
        refused.check_trainable(_fit("all"))
    refused.check_trainable(_fit("normal"))  # one-class detectors may be compared on them


def test_pictures_of_a_patient_may_cross_splits_only_by_the_switch_that_says_so(tmp_path):
    def data(**changes):
        return Folder(**sections(root=str(tmp_path / "p"), patch_size=(8, 8), store_dir=str(tmp_path / "store"),
                                 patient="([a-z]+)", supervision="labels", **changes))  # fmt: skip

    for kind in ("normal", "crack"):
        (tmp_path / "p" / kind).mkdir(parents=True)
        for i in range(40):
            pixels = np.random.default_rng([i, len(kind)]).integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "p" / kind / f"{i}.png")
    together, torn = data(), data(split={"by": "image"})
    with pytest.raises(UserError, match="patients are too few"):
        together.setup()  # two patients, named after their folders
    torn.setup()
    assert torn.facts()["audit"]["shared_patients"]
    assert torn.caveats == (CROSSING,)
    assert "by image: patients cross splits" in torn.facts()["split_rule"]
    assert together.caveats == ()
