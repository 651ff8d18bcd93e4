import numpy as np
import torch

from anomaly_lab.data.loading import JudgedImages, TrainingImages, chunks
from anomaly_lab.data.preprocessing.augmentation import Augmentation


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
    assert JudgedImages(data.store)[np.array([2, 1])]["row"].tolist() == [2, 1]


def test_chunks_cover_all_rows():
    assert [chunk.tolist() for chunk in chunks(np.arange(5), 2)] == [[0, 1], [2, 3], [4]]
    assert chunks(np.arange(0), 2) == []
