"""Likeness along a listing, from judged to trained pictures, and patients joined by it."""

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_lab.data.datamodule import StoreOptions
from anomaly_lab.data.datasets.folder import Folder
from anomaly_lab.data.datasets.headct import HeadCT
from anomaly_lab.data.splitting import likeness
from anomaly_lab.data.splitting.audit import leaks
from anomaly_lab.data.splitting.splits import Split

PER_HEAD = 4


def unit(pictures: np.ndarray) -> np.ndarray:
    return (pictures / np.linalg.norm(pictures, axis=1, keepdims=True)).astype(np.float32)


def heads(n: int, rng: np.random.Generator, noise: float = 0.5) -> np.ndarray:
    """Pictures of which PER_HEAD that follow each other are alike, uint8 [n, 32, 32]."""
    coarse = np.repeat(rng.random((-(-n // PER_HEAD), 8, 8)), PER_HEAD, axis=0)[:n]
    smooth = coarse + noise * rng.random((n, 8, 8))
    return (255 * np.kron(smooth / smooth.max(), np.ones((4, 4)))).astype(np.uint8)


def write(folder, pictures: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


@pytest.fixture
def pictures(tmp_path):
    """A folder of 60 normals, four of each head, and 20 anomalies of one head each."""
    rng = np.random.default_rng(0)
    write(tmp_path / "files" / "normal", heads(60, rng))
    write(tmp_path / "files" / "odd", (255 * rng.random((20, 32, 32))).astype(np.uint8))

    def make(**arguments) -> Folder:
        store = StoreOptions(folder=str(tmp_path / "store"))
        data = Folder(root=str(tmp_path / "files"), patch_size=(32, 32), batch_size=4, store=store, **arguments)
        data.setup()
        return data

    return make


def test_sets_without_order_raise_hardly_any_alarm():
    rng = np.random.default_rng(1)
    found = [likeness.neighbours(unit(rng.standard_normal((60, 16)))) for _ in range(80)]
    assert not any(near.belong_together for near in found)
    assert np.mean([near.p <= 0.1 for near in found]) == pytest.approx(0.1, abs=0.09)  # the p-value is one


def test_stretches_of_one_origin_are_not_taken_for_patients():
    rng = np.random.default_rng(2)
    hospitals = np.repeat(rng.standard_normal((3, 64)), 70, axis=0)  # sorted by hospital
    assert not likeness.neighbours(unit(hospitals + rng.standard_normal((210, 64)))).belong_together


def test_long_listings_are_compared_in_stretches():
    rng = np.random.default_rng(3)
    slices = np.repeat(rng.standard_normal((1000, 32)), PER_HEAD, axis=0) + rng.standard_normal((4000, 32))
    stretches = likeness.runs(4000)
    assert sum(map(len, stretches)) == likeness.MAX_COMPARED
    chosen = unit(np.concatenate([slices[stretch.start : stretch.stop] for stretch in stretches]))
    found = likeness.neighbours(chosen, stretches)
    assert found.pairs == len(stretches) * (likeness.RUN - 1)
    assert found.belong_together


@pytest.mark.parametrize("shape", [(1, 40, 40), (3, 20, 30), (1, 10, 40, 40)])
def test_likeness_ignores_brightness_and_contrast_of_any_picture(shape):
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    small = likeness.standardised(torch.cat([image, 0.3 * image[:1] + 0.2, torch.full_like(image[:1], 0.7)]))
    like = small @ small.T
    assert like[0, 2] == pytest.approx(1, abs=1e-4)
    assert like[0, 1] < 0.9
    assert not like[3].any()  # a uniform picture is like none


def test_audit_finds_slices_of_one_head_on_both_sides(pictures):
    facts = pictures().facts()
    near = facts["audit"]["likeness"]["neighbours"]
    assert near["pairs"] == 59
    assert near["alike"] > 30
    assert near["together"]
    assert near["leaking"] > near["judged"] / 2
    assert leaks(facts["audit"])[0] in facts["remarks"]
    assert leaks(facts["audit"])[0].endswith("keeps such files together, where patients do not cross splits.")
    assert leaks(facts["audit"], grouped=True)[0].endswith("data.group=likeness has joined the others.")
    worst = facts["audit"]["likeness"]["worst"][0]
    first, second = (int(id[-7:-4]) // PER_HEAD for id in worst["ids"])
    assert first == second
    assert worst["splits"] in (["test", "train"], ["val", "train"])


def test_joined_patients_do_not_leak(pictures):
    data = pictures(group="likeness")
    facts = data.facts()
    assert facts["audit"]["likeness"]["neighbours"]["together"]  # of the files as the data set names them
    assert facts["audit"]["likeness"]["neighbours"]["leaking"] == 0
    assert not any("Neighbouring" in remark for remark in facts["remarks"])
    groups = [{int(id[-7:-4]) // PER_HEAD for id in group} for group in facts["groups"]["groups"]]
    assert sum(len(heads) == 1 for heads in groups) > 12
    again = pictures(group="likeness")
    assert again.store.index.columns["patient"] == data.store.index.columns["patient"]


def test_by_default_patients_are_those_of_the_data_set(pictures):
    data = pictures()
    assert len(set(data.store.index.columns["patient"])) == 80
    assert "groups" not in data.facts()


def test_a_picture_that_cannot_be_read_stays_alone(pictures, tmp_path):
    (tmp_path / "files" / "normal" / "001.png").write_bytes(b"no picture")
    data = Folder(
        root=str(tmp_path / "files"),
        patch_size=(32, 32),
        group="likeness",
        store=StoreOptions(folder=str(tmp_path / "store"), on_bad="skip"),
    )
    data.setup()
    assert len(data.store.skipped) == 1


def write_headct(root, normal: int = 60, anomalous: int = 20) -> None:
    rng = np.random.default_rng(0)
    odd = (255 * np.kron(rng.random((anomalous, 8, 8)), np.ones((4, 4)))).astype(np.uint8)
    write(root / "head_ct", np.concatenate([odd, heads(normal, rng)]))
    rows = (f"{number},{int(number < anomalous)}" for number in range(normal + anomalous))
    (root / "labels.csv").write_text("id, hemorrhage\n" + "\n".join(rows) + "\n")


def headct(tmp_path, **arguments) -> HeadCT:
    if not (tmp_path / "headct").exists():
        write_headct(tmp_path / "headct")
    rule = {"train_normals": 45, **arguments.pop("split", {})}
    store = StoreOptions(folder=str(tmp_path / "store"))
    data = HeadCT(root=str(tmp_path / "headct"), patch_size=(32, 32), split=Split(**rule), store=store, **arguments)
    data.setup()
    return data


def names(data: HeadCT, split: str) -> list[int]:
    return [int(data.store.index.columns["id"][row]) for row in data.rows[split]]


@pytest.mark.parametrize("seed", range(5))
def test_headct_judges_the_block_of_the_seed_and_nothing_near_it_trains(tmp_path, seed):
    data = headct(tmp_path, seed=seed)
    block = list(range(20 + 15 * (seed % 4), 35 + 15 * (seed % 4)))
    assert names(data, "test") == [*range(20), *block]
    trained, held_out = names(data, "train"), names(data, "val")
    assert held_out == list(range(held_out[0], held_out[0] + len(held_out)))  # they follow each other
    patient = dict(zip(data.store.index.columns["id"], data.store.index.columns["patient"], strict=True))
    for one, others in ((block, trained), (block, held_out), (held_out, trained)):
        assert min(abs(i - j) for i in one for j in others) > 2
        assert not {patient[f"{i:03d}"] for i in one} & {patient[f"{i:03d}"] for i in others}
    facts = data.facts()
    assert facts["audit"]["shared_patients"] == []
    assert facts["audit"]["likeness"]["neighbours"]["leaking"] == 0
    assert facts["in_no_split"]["count"] == 80 - sum(len(rows) for rows in data.rows.values())
    assert data.caveats == ()


def test_headct_folds_are_blocks(tmp_path):
    tested = [names(headct(tmp_path, seed=7, split={"folds": 3, "fold": fold}), "test")[20:] for fold in range(3)]
    assert tested == [list(range(20, 40)), list(range(40, 60)), list(range(60, 80))]


def test_headct_at_random_says_that_it_leaks(tmp_path):
    data = headct(tmp_path, protocol="random")
    facts = data.facts()
    assert [len(rows) for rows in data.rows.values()] == [41, 4, 35]
    assert any("data.protocol=random" in caveat for caveat in data.caveats)
    assert facts["audit"]["shared_patients"]
    assert any("Neighbouring files" in remark for remark in facts["remarks"])


def test_headct_at_random_draws_what_it_always_drew(tmp_path):
    before = headct(tmp_path, protocol="random", group="patient", seed=3)
    after = headct(tmp_path, protocol="random", seed=3)
    assert {name: rows.tolist() for name, rows in before.rows.items()} == {
        name: rows.tolist() for name, rows in after.rows.items()
    }
