"""A table of made-up scores."""

import csv

import numpy as np

from anomaly_lab.evaluation.protocol import evaluate_scores
from anomaly_lab.evaluation.scores import Scores


def example(num_val=25, num_test=60, shift=1.5, floor_shift=0.5, seed=0):
    random = np.random.default_rng(seed)
    n = num_val + num_test
    label = np.r_[np.zeros(num_val, int), np.arange(num_test) % 2]
    baselines = {name: random.normal(size=n) + move * label
              for name, move in (("mean_image", 0.0), ("pca_32", floor_shift))}  # fmt: skip
    return Scores(
        id=[f"{i:03d}" for i in range(n)],
        patient=[f"p{i // 2}" for i in range(n)],
        split=["val"] * num_val + ["test"] * num_test,
        label=label,
        score=(random.normal(size=n) + shift * label).astype(np.float32).astype(float),
        baselines=baselines,
    )


def rows_of(scores):
    threshold = evaluate_scores(scores, replicates=20)["threshold"]["value"]
    return list(csv.DictReader(scores.to_csv(threshold).splitlines()))
