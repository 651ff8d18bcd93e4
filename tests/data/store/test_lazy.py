import nibabel as nib
import numpy as np
import pytest
import torch
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets.nifti import Nifti
from anomaly_lab.types import UserError


def test_pictures_read_when_asked_for_equal_the_stored_ones(make, fake_trainer, left_behind):
    lazy = make(store=False)
    lazy.setup()
    assert left_behind() == []
    stored = make()
    stored.setup()
    for name in ("train", "val", "test"):
        assert np.array_equal(lazy.rows[name], stored.rows[name])
    rows = np.array([4, 0, 9])
    ours, theirs = lazy.store.batch(rows), stored.store.batch(rows)
    assert all(torch.equal(ours[key], theirs[key]) for key in ("image", "label", "row"))
    assert lazy.store.images.shape == stored.store.images.shape
    lazy.trainer, stored.trainer = fake_trainer(), fake_trainer()
    for one, other in zip(lazy.train_dataloader(), stored.train_dataloader(), strict=True):
        assert torch.equal(one["image"], other["image"])


def test_a_volume_is_not_its_first_window(tmp_path):
    for number in range(4):
        values = np.random.default_rng(number).integers(1, 100, (12, 14, 10)).astype(np.int16)
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / f"p{number}.nii.gz")
    (tmp_path / "list.csv").write_text("id,label,patient\n" + "".join(f"p{i},{i // 3},p{i}\n" for i in range(4)))
    data = Nifti(
        **sections(root=str(tmp_path), masks=None, labels="list.csv", images="*.nii.gz", patch_size=(8, 8), store=False)
    )
    with pytest.raises(UserError, match=r"reads whole pictures, and this scan is cut into \d+ windows"):
        data.setup()


def test_a_deep_picture_after_a_shallow_one_is_not_made_shallow(make, headct):
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(deep).save(headct / "head_ct" / "head_ct" / "003.png")
    data = make(store=False)
    data.setup()
    with pytest.raises(UserError, match=r"003\.png: it has 16 bits"):
        data.store.images[np.array([3])]


def test_workers_read_the_same(make, fake_trainer):
    one, two = make(store=False), make(store=False, num_workers=2)
    for data in (one, two):
        data.setup()
        data.trainer = fake_trainer()
    for a, b in zip(one.test_dataloader(), two.test_dataloader(), strict=True):
        assert torch.equal(a["image"], b["image"])


def test_facts_say_that_nothing_is_stored_and_pictures_were_not_compared(make):
    data = make(store=False)
    data.setup()
    facts = data.facts()
    assert "none" in facts["store"]
    assert facts["audit"]["checked"] == 0
    assert facts["counts"]["test"] == {"normal": 2, "anomalous": 3}
    assert data.store.fingerprint == make_again(make).store.fingerprint


def test_other_pictures_of_equal_names_and_sizes_are_other_data(make, headct):
    before = make_again(make).store
    digests, former = before.digests(), before.former_digests()
    picture = headct / "head_ct" / "head_ct" / "003.png"
    content = bytearray(picture.read_bytes())
    content[len(content) // 2] ^= 1
    picture.write_bytes(content)
    after = make_again(make).store
    assert after.fingerprints[0] != before.fingerprint
    assert after.fingerprints[1] == before.fingerprints[1]
    assert [row for row, (one, other) in enumerate(zip(digests, after.digests(), strict=True)) if one != other] == [3]
    assert after.former_digests() == former


def make_again(make):
    data = make(store=False)
    data.setup()
    return data


def test_cutting_needs_a_store(make):
    with pytest.raises(UserError, match=r"data\.store\.enabled=false reads whole pictures"):
        make(store=False, cut={"overlap": 0.5}).setup()


def test_broken_picture_is_named_when_it_is_met(make, headct):
    data = make(store=False)
    data.setup()
    (headct / "head_ct" / "head_ct" / "003.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"003\.png: the file is empty"):
        data.store.batch(np.array([3]))
