"""Which training image comes when, and the batches made of them."""

import hashlib
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from no_waiting import FAR, NoBlockingCopies, NoTensorsOfNumbers

from anomaly_lab.data import batches
from anomaly_lab.data.batches import (
    IterationSampler,
    ResidentImages,
    ScoringImages,
    TrainingImages,
    balanced,
    chunks,
    drawn,
)
from anomaly_lab.data.preprocessing.augmentation import Augmentation
from anomaly_lab.types import Phase, Schedule

SCHEDULE = Schedule((Phase("gan", 4, (), 3), Phase("encoder", 4, (), 1)))


def test_training_item_is_minibatches_of_training_rows(make):
    data = make()
    data.setup()
    rows = data.rows["train"]
    images = TrainingImages(data.store, rows, None, seed=0)
    item = images[np.arange(12).reshape(3, 4)]
    assert item["image"].shape == (3, 4, 1, 8, 8)
    assert set(item["row"].ravel().tolist()) <= set(rows.tolist())
    plain = data.store.batch(item["row"].ravel().numpy())["image"]
    assert torch.equal(item["image"].flatten(0, 1), plain)


def test_augmentation_belongs_to_the_draw_not_to_the_item(make):
    data = make()
    data.setup()
    images = TrainingImages(data.store, data.rows["train"], Augmentation(degrees=20), seed=0)
    whole = images[np.arange(12).reshape(3, 4)]["image"]
    assert torch.equal(whole[2], images[np.arange(8, 12)[None]]["image"][0])


def test_judged_item_is_the_stores_batch(make):
    data = make()
    data.setup()
    assert ScoringImages(data.store)[np.array([2, 1])]["row"].tolist() == [2, 1]


def test_chunks_cover_all_rows():
    assert [chunk.tolist() for chunk in chunks(np.arange(5), 2)] == [[0, 1], [2, 3], [4]]
    assert chunks(np.arange(0), 2) == []


def test_every_pass_shows_each_element_once_in_its_own_order():
    elements = drawn(np.arange(35), seed=5, size=7).reshape(5, 7)
    assert all(sorted(one) == list(range(7)) for one in elements.tolist())
    assert len({tuple(one) for one in elements.tolist()}) == 5
    assert np.array_equal(elements[2], np.random.default_rng([5, 2]).permutation(7))


@given(st.integers(1, 9), st.lists(st.integers(0, 60), min_size=1))
def test_draw_depends_on_its_number_alone(size, numbers):
    whole = drawn(np.arange(61), 1, size)
    assert np.array_equal(drawn(np.array(numbers), 1, size), whole[numbers])


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_a_balanced_pass_has_every_anomaly_once_and_as_many_normals(normal, anomalous, seed):
    rows = balanced(np.arange(6 * anomalous), seed, np.arange(100, 100 + normal), np.arange(anomalous))
    passes = [sorted(one) for one in rows.reshape(3, -1).tolist()]
    assert all(one[:anomalous] == list(range(anomalous)) for one in passes)
    normals = Counter(row for one in passes for row in one[anomalous:])
    assert sum(normals.values()) == 3 * anomalous
    times = [normals.get(row, 0) for row in range(100, 100 + normal)]
    assert max(times) - min(times) <= 1  # none comes again before all have come


def test_normals_are_drawn_anew_for_each_pass_by_the_seed():
    normal, anomalous = np.arange(100, 1100), np.arange(10)
    first, second = np.sort(balanced(np.arange(40), 0, normal, anomalous).reshape(2, 20))
    assert not set(first[10:]) & set(second[10:])
    other = balanced(np.arange(20), 1, normal, anomalous)
    assert set(other.tolist()) != set(first.tolist())


@settings(deadline=None)
@given(st.lists(st.integers(0, 200), min_size=1))
def test_a_balanced_draw_depends_on_its_number_alone(numbers):
    rows = np.arange(50, 90), np.arange(7)
    assert np.array_equal(balanced(np.array(numbers), 1, *rows), balanced(np.arange(201), 1, *rows)[numbers])


def test_the_order_of_older_trainings_is_kept():
    """Whoever changes it changes every number that was ever trained."""
    order = drawn(np.arange(5000), seed=7, size=321)
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()[:16] == "70ec12de1649e321"


def test_targets_come_with_their_rows(make):
    data = make()
    data.setup()
    targets = np.arange(26, dtype=np.int8).reshape(13, 2)
    images = TrainingImages(data.store, data.rows["train"], None, 0, anomalous=data.rows["test"][:3], targets=targets)
    item = images[np.arange(6).reshape(3, 2)]
    assert item["target"].shape == (3, 2, 2)
    assert torch.equal(item["target"], torch.from_numpy(targets)[item["row"]])
    judged = ScoringImages(data.store, targets)[np.array([2, 1])]
    assert judged["target"].tolist() == [[4, 5], [2, 3]]
    assert "target" not in TrainingImages(data.store, data.rows["train"], None, 0)[np.arange(6).reshape(3, 2)]


def test_draws_are_counted_through_phases_without_gap():
    sampler = IterationSampler(SCHEDULE, range(8), batch_size=2)
    draws = list(sampler)
    assert len(sampler) == len(draws) == 8
    assert [len(item) for item in draws] == [3, 3, 3, 3, 1, 1, 1, 1]
    assert np.array_equal(np.concatenate([item.ravel() for item in draws]), np.arange(32))


def test_resumed_epoch_continues_where_it_was():
    straight = list(IterationSampler(SCHEDULE, range(8), 2))
    resumed = list(IterationSampler(SCHEDULE, range(3, 8), 2))
    assert all(np.array_equal(a, b) for a, b in zip(straight[3:], resumed, strict=True))


def test_ranks_share_every_minibatch():
    alone = list(IterationSampler(SCHEDULE, range(8), 4))
    halves = [list(IterationSampler(SCHEDULE, range(8), 4, rank, 2)) for rank in (0, 1)]
    for whole, left, right in zip(alone, *halves, strict=True):
        assert np.array_equal(whole, np.concatenate([left, right], axis=1))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("augmentation", [None, Augmentation(flip=0.5)])
def test_resident_images_are_those_of_the_store(kind, augmentation, monkeypatch):
    monkeypatch.setattr(batches, "UPLOADED_BYTES", 1000)  # in several parts
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (50, 3, 6, 5), kind, endpoint=True)
    store, rows = SimpleNamespace(images=pixels), np.arange(3, 50, 2)
    draws = np.arange(100, 160).reshape(3, 20)
    expected = TrainingImages(store, rows, augmentation, seed=4)[draws]
    found = ResidentImages(store, rows, augmentation, seed=4, device="cpu")[draws]
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key].dtype == values.dtype
        assert torch.equal(found[key], values), key


@pytest.mark.parametrize("anomalous", [None, np.array([0, 7])])
def test_resident_images_of_labelled_cases_are_the_same(anomalous):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 1, 4, 4), np.uint8)
    targets = np.arange(18, dtype=np.int8).reshape(9, 2)
    store, rows, draws = SimpleNamespace(images=pixels), np.array([1, 3, 4, 8]), np.arange(24).reshape(2, 12)
    expected = TrainingImages(store, rows, None, 4, anomalous, targets)[draws]
    found = ResidentImages(store, rows, None, 4, "cpu", anomalous, targets)[draws]
    assert found.keys() == expected.keys() == {"image", "row", "target"}
    for key, values in expected.items():
        assert torch.equal(found[key], values), key


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("augmentation", [None, Augmentation(flip=0.5), Augmentation(degrees=9, shift=0.1, gamma=2)])
def test_nobody_waits_for_resident_images(kind, augmentation):
    images = ResidentImages(SimpleNamespace(images=np.zeros((9, 1, 8, 8), kind)), np.arange(9), augmentation, 0, FAR)
    with NoBlockingCopies(), NoTensorsOfNumbers():
        batch = images[np.arange(12).reshape(3, 4)]
    assert {tensor.device for tensor in batch.values()} == {FAR}
    assert batch["image"].shape == (3, 4, 1, 8, 8)
