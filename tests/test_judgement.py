"""Which cases a run keeps pictures of."""

import numpy as np
from toy_scores import example

from anomaly_lab.judgement import EXHIBITS, FIXED, _extremes, _fixed


def test_the_extremes_of_every_kind_are_kept() -> None:
    scores = example()
    threshold = float(np.quantile(scores.score[scores.normals], 0.95))
    test = scores.of("test")
    for kind, label, flagged in (("tp", 1, True), ("fp", 0, True), ("tn", 0, False), ("fn", 1, False)):
        kept = [i for found, i in _extremes(scores, threshold) if found == kind]
        of_kind = test & (scores.label == label) & ((scores.score > threshold) == flagged)
        assert all(of_kind[i] for i in kept)
        assert len(kept) == min(EXHIBITS, of_kind.sum())
        others = np.setdiff1d(np.flatnonzero(of_kind), kept)
        if len(others) and flagged:
            assert scores.score[others].max() <= scores.score[kept].min()
        elif len(others):
            assert scores.score[others].min() >= scores.score[kept].max()


def test_the_same_cases_are_kept_whatever_the_detector_says() -> None:
    one, other = example(seed=0), example(seed=0)
    other.score[:] = -other.score
    assert _fixed(one) == _fixed(other)
    labels = [int(one.label[i]) for _, i in _fixed(one)]
    assert labels == [1] * FIXED + [0] * FIXED
    assert all(one.of("test")[i] for _, i in _fixed(one))
    assert _extremes(one, None) == []
