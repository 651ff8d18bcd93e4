"""A table of made-up class probabilities with the anomaly scores of the same cases."""

import numpy as np

from anomaly_lab.evaluation.classes import ClassTable, Supervision
from anomaly_lab.evaluation.scores import Scores

MULTICLASS = ("normal", "benign", "malignant")
MULTILABEL = ("Gun", "Knife", "Wrench")


def example(task="multiclass", num_val=40, num_test=90, sharpness=2.0, seed=0):
    """Return the table, the scores and what the detector was told; every third case of a multi-label table is normal.

    Logits are twice as sharp as they should be, and a tenth of a multi-label table is unknown.
    """
    random = np.random.default_rng(seed)
    n, exclusive = num_val + num_test, task == "multiclass"
    classes = MULTICLASS if exclusive else MULTILABEL
    truth = np.eye(3, dtype=np.int8)[np.arange(n) % 3]
    if not exclusive:
        truth = (random.random((n, 3)) < (0.5, 0.3, 0.15)).astype(np.int8) * (np.arange(n) % 3 > 0)[:, None]
    logits = sharpness * (random.normal(size=(n, 3)) + 1.2 * truth)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) if exclusive else 1 / (1 + np.exp(1 - logits))
    label = (1 - truth[:, 0] if exclusive else truth.max(1)).astype(np.int64)
    target = truth if exclusive else np.where(random.random((n, 3)) < 0.1, -1, truth).astype(np.int8)
    id, patient = [f"{i:03d}" for i in range(n)], [f"p{i // 2}" for i in range(n)]
    split = ["val"] * num_val + ["test"] * num_test
    score = 1 - probability[:, 0] if exclusive else probability.max(1)
    told = Supervision(task, {name: 30 - 9 * k for k, name in enumerate(classes)})
    baselines = {"mean_image": random.normal(size=n), "pca_32": random.normal(size=n) + 0.5 * label}
    scores = Scores(id, patient, split, label, score, baselines)
    return ClassTable(id, patient, split, classes, target, probability), scores, told
