import numpy as np
import pytest
import torch

from anomaly_lab.types import UserError


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
    files = [headct / "head_ct" / "head_ct" / f"{i:03d}.png" for i in (7, 2)]
    assert torch.equal(data.read_for_scoring(files), data.store.batch(np.array([7, 2]))["image"])


def test_users_split_file_is_used(make, tmp_path):
    path = tmp_path / "split.csv"
    rows = [f"{i:03d},{'test' if i < 4 else 'val' if i < 6 else 'train'}" for i in range(13)]
    path.write_text("\n".join(["id,split", *rows]))
    data = make(splits=str(path))
    data.setup()
    assert data.rows["val"].tolist() == [4, 5]
    assert str(path) in data.facts()["split_rule"]


def test_facts_count_what_is_there_and_what_was_skipped(make, headct):
    (headct / "head_ct" / "head_ct" / "000.png").write_bytes(b"")
    data = make(on_bad="skip")
    data.setup()
    facts = data.facts()
    assert facts["counts"]["test"] == {"normal": 2, "anomalous": 2}
    assert facts["patients"] == {"train": 6, "val": 2, "test": 4}
    assert [entry["file"] for entry in facts["skipped"]] == ["head_ct/head_ct/000.png"]


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
        ({"augment": {"flips": 0.5}}, "unknown flips"),
        ({"patch_size": (8, 8, 8)}, "patch_size"),
        ({"in_channels": 2}, "in_channels"),
        ({"epoch_length": 0}, "epoch_length"),
    ],
)
def test_wrong_settings_are_one_line(make, changes, message):
    with pytest.raises(UserError, match=message):
        make(**changes).setup()


def test_minibatch_that_ranks_cannot_share_is_refused(make, fake_trainer):
    data = make()
    data.setup()
    data.trainer = fake_trainer(0, 0, 3)
    with pytest.raises(UserError, match="not divisible by 3"):
        data.train_dataloader()
