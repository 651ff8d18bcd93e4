"""Boxes from maps: a hand table, parity with a literal re-computation, and what is no box."""

import math

import numpy as np
import pytest

from anomaly_lab.metrics.boxes import _boxes, _overlap, localise


def rectangle(*boxes, value=1.0, side=20):
    drawn = np.zeros((side, side))
    for top, left, bottom, right in boxes:
        drawn[top:bottom, left:right] = value
    return drawn


def test_the_overlap_by_hand():
    """Boxes of 4 × 4 that share 2 × 4 of 24."""
    assert _overlap(np.array([0, 0, 4, 4]), np.array([[2, 0, 6, 4], [9, 9, 10, 10]])).tolist() == [8 / 24, 0]
    assert _boxes(rectangle((1, 2, 4, 6)) > 0).tolist() == [[1, 2, 4, 6]]


def test_the_hand_table():
    """Certain first: a hit, a false alarm, a hit; of three boxes one is not found: (1 + 2/3) / 3."""
    one, two = (2, 2, 8, 8), (12, 12, 18, 18)
    maps = np.stack([rectangle(one), rectangle(two), rectangle(two)])
    masks = np.stack([rectangle(one), rectangle(), rectangle(two) + rectangle(one)]) > 0
    found = localise(maps, masks, np.array([0.9, 0.8, 0.7]))
    assert found.average_precision == pytest.approx((1 + 2 / 3) / 3)
    assert (found.pointing, found.known) == (1.0, 3)


def test_a_box_is_found_once():
    lesion = rectangle((2, 2, 12, 12)) > 0
    twice = rectangle((2, 2, 12, 9)) + rectangle((2, 10, 12, 12), value=0.9)
    assert localise(twice[None], lesion[None], np.ones(1)).average_precision == 1.0
    halves = rectangle((2, 2, 7, 12)) + rectangle((8, 2, 12, 12), value=0.9)
    assert localise(halves[None], lesion[None], np.ones(1)).average_precision == 1.0  # of exactly .5, by the stronger


def literal(maps, masks, scores):
    """Every claim in one list, matched walking down it, then precision and recall point by point."""
    claims, truths = [], []
    for i, (values, lesion) in enumerate(zip(maps, masks, strict=True)):
        truths.append([list(box) for box in _boxes(lesion)])
        for place, box in enumerate(_boxes(values > 0.2 * values.max())):
            claims.append((-scores[i], -values[box[0] : box[2], box[1] : box[3]].max(), i, place, list(box)))
    total, hits, points = sum(map(len, truths)), 0, []
    for seen, (_, _, i, _, box) in enumerate(sorted(claims), 1):
        best, chosen = 0.0, None
        for k, other in enumerate(truths[i]):
            high = max(0, min(box[2], other[2]) - max(box[0], other[0]))
            wide = max(0, min(box[3], other[3]) - max(box[1], other[1]))
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
            overlap = high * wide / (sum(areas) - high * wide)
            if overlap > best:
                best, chosen = overlap, k
        if best >= 0.5:
            truths[i].pop(chosen)
            hits += 1
        points.append((hits / total, hits / seen))
    area, last = 0.0, 0.0
    for recall, _ in points:
        if recall > last:
            area += (recall - last) * max(precision for r, precision in points if r >= recall)
            last = recall
    return area


@pytest.mark.parametrize("seed", range(5))
def test_random_boxes_equal_the_literal_walk(seed):
    random = np.random.default_rng(seed)

    def some(value):
        corners = random.integers(0, 14, (random.integers(0, 4), 2))
        return rectangle(*((top, left, top + 5, left + 5) for top, left in corners), value=value)

    masks = np.stack([some(1.0) for _ in range(30)]) > 0
    maps = np.stack([np.roll(mask, random.integers(0, 3)) * random.random() for mask in masks])
    maps = maps + np.stack([some(0.5) for _ in range(30)])
    scores = random.permutation(30) / 30
    assert localise(maps, masks, scores).average_precision == pytest.approx(literal(maps, masks, scores))


def test_no_box_no_claim():
    nothing = np.zeros((2, 8, 8))
    assert math.isnan(localise(nothing, nothing > 0, np.zeros(2)).average_precision)
    mask = nothing.copy()
    mask[0, 2:4, 2:4] = 1
    found = localise(nothing, mask > 0, np.zeros(2))
    assert (found.average_precision, found.pointing) == (0.0, 0.0)
