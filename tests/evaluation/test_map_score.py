"""By hand, and the promises: what a rule measures is saved, and a measured image is judged by the others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anomaly_lab.evaluation import map_score, memory
from anomaly_lab.evaluation.map_score import FILE, MapScore
from anomaly_lab.experiment.config import ScoreRule
from anomaly_lab.types import Batch, Prediction, UserError


def drawn(image: Tensor) -> Prediction:
    """A detector that redraws everything as grey; its own score is none that a map has."""
    return Prediction(torch.full((len(image),), 9.0), (image**2).mean(1, keepdim=True), torch.zeros_like(image))


def unsigned(image: Tensor) -> Prediction:
    return drawn(image)._replace(reconstruction=None)


def score(batch: Batch) -> Prediction:
    return drawn(batch["image"])


def pictures(count: int, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> Tensor:
    levels = np.random.default_rng(seed).integers(64, 192, (count, *shape))
    return torch.from_numpy((levels / 127.5 - 1).astype(np.float32))


def image_of(**places: float) -> Tensor:
    image = torch.zeros(1, 1, 4, 4)
    for place, value in places.items():
        image[0, 0, int(place[1]), int(place[2])] = value
    return image


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ScoreRule("map", pool="max"), 0.75),
        (ScoreRule("map", pool="mean"), (0.5 + 0.25 + 0.75) / 16),
        (ScoreRule("map", pool="mean", sign="bright"), 0.75 / 16),
        (ScoreRule("map", pool="mean", sign="dark"), 0.75 / 16),
        (ScoreRule("map", sign="bright", top=0.125), (0.5 + 0.25) / 2),
        (ScoreRule("map", top=0.001), 0.75),  # one pixel at least
    ],
)
def test_by_hand(rule: ScoreRule, expected: float) -> None:
    image = image_of(p00=0.5, p11=0.25, p33=-0.75)
    prediction = MapScore(rule)(image, drawn(image))
    assert prediction.anomaly_score.item() == pytest.approx(expected)
    assert prediction.anomaly_map is not None
    assert prediction.anomaly_map.shape == (1, 1, 4, 4)
    assert prediction.anomaly_map.amin() >= 0
    assert torch.equal(prediction.reconstruction, drawn(image).reconstruction)


def test_smoothing_is_in_pixels_of_a_side_of_64() -> None:
    """The same picture at twice the size has the same map at twice the size."""
    small = torch.zeros(1, 1, 64, 64)
    small[..., 20:30, 24:40] = 0.5
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    rule = MapScore(ScoreRule("map", smooth=2.0, pool="max"))
    assert rule(large, drawn(large)).anomaly_score.item() == pytest.approx(
        rule(small, drawn(small)).anomaly_score.item(), rel=0.02
    )
    assert rule(small, drawn(small)).anomaly_score.item() < 0.5
    noise = torch.zeros(1, 1, 64, 64)
    noise[..., ::2] = 0.5
    noise[..., 1::2] = -0.5
    assert rule(noise, drawn(noise)).anomaly_map[..., 8:-8, 8:-8].amax() < 0.01  # it has no side


def test_a_place_is_measured_on_the_normals() -> None:
    normals, new = pictures(12), pictures(2, seed=5)
    rule = ScoreRule("map", sign="bright", standardise="place", pool="max")
    fitted = MapScore.fit(rule, score, [normals[:5], normals[5:]])
    mean, sd = normals.double().mean(0), normals.double().std(0)
    floor = sd.mean() / 2 + 1e-6
    expected = ((new - mean) / (sd**2 + floor**2).sqrt()).flatten(1).amax(1)
    assert fitted.count == 12
    assert torch.allclose(fitted(new, drawn(new)).anomaly_score.double(), expected, atol=1e-5)


def test_of_too_many_normals_those_remembered_are_from_all_over_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones may be of another year, scanner or patient; and each is still left out for itself."""
    monkeypatch.setattr(map_score, "REMEMBERED", 4)
    monkeypatch.setattr(memory, "MAX_NORMALS", 4)
    normals = pictures(10, (1, 32, 32))
    fitted = MapScore.fit(ScoreRule("map", standardise="place", features=True), score, normals.split(3))
    assert fitted.memory is not None
    for row, number in enumerate((0, 3, 6, 9)):
        one = normals[number : number + 1]
        assert fitted.memory.distances(one).amax() < 1e-3
        assert fitted.known[map_score._digest(one[0])] == row
        assert fitted._terms(one, torch.zeros(1, 1, 32, 32))[1].amin() > 1e-3
    assert sorted(fitted.known.values()) == list(range(10))


@pytest.mark.parametrize("which", ["training", "validation"])
def test_a_measured_normal_is_judged_by_the_others(which: str) -> None:
    normals = pictures(9)
    rule = ScoreRule("map", standardise="place", normals=which, smooth=1.0)
    fitted = MapScore.fit(rule, score, [normals])
    for i in range(9):
        others = MapScore.fit(rule, score, [torch.cat([normals[:i], normals[i + 1 :]])])
        one = normals[i : i + 1]
        assert fitted(one, drawn(one)).anomaly_score.item() == pytest.approx(
            others(one, drawn(one)).anomaly_score.item(), rel=1e-4
        )


def test_a_score_does_not_depend_on_the_batch() -> None:
    normals, new = pictures(9), pictures(6, seed=1)
    fitted = MapScore.fit(ScoreRule("map", standardise="place", smooth=2.0), score, normals.split(4))
    together = fitted(new, drawn(new)).anomaly_score
    alone = torch.cat([fitted(one[None], drawn(one[None])).anomaly_score for one in new])
    assert torch.allclose(together, alone, rtol=1e-5)


def test_what_was_measured_is_kept_and_removed_with_the_run(tmp_path: Path) -> None:
    normals, new = pictures(5), pictures(3, seed=2)
    rule = ScoreRule("map", standardise="place")
    fitted = MapScore.fit(rule, score, [normals])
    fitted.save(tmp_path)
    for image in (new, normals):
        assert torch.equal(
            MapScore.load(rule, tmp_path)(image, drawn(image)).anomaly_score, fitted(image, drawn(image)).anomaly_score
        )
    MapScore(ScoreRule()).save(tmp_path)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_a_damaged_or_lost_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    rule = ScoreRule("map", standardise="place")
    with pytest.raises(UserError, match=r"score\.npz.*make evaluate"):
        MapScore.load(rule, tmp_path)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"score\.npz.*make evaluate"):
        MapScore.load(rule, tmp_path)


def test_what_a_detector_cannot_give_is_refused_in_one_line() -> None:
    image = pictures(2)
    with pytest.raises(UserError, match=r"score\.sign=bright: this detector does not reconstruct"):
        MapScore(ScoreRule("map", sign="bright"))(image, unsigned(image))
    with pytest.raises(UserError, match=r"has no anomaly map"):
        MapScore(ScoreRule("map"))(image, Prediction(torch.zeros(2)))
    with pytest.raises(UserError, match="two normals at least"):
        MapScore.fit(ScoreRule("map", standardise="place"), score, [pictures(1)])
    fitted = MapScore.fit(ScoreRule("map", standardise="place"), score, [image])
    other = pictures(1, (1, 6, 6))
    with pytest.raises(UserError, match=r"maps of \[8, 8\] pixels"):
        fitted(other, drawn(other))


def test_a_map_without_a_sign_counts_what_is_unusually_high() -> None:
    normals = pictures(10)
    rule = ScoreRule("map", standardise="place", pool="max")
    fitted = MapScore.fit(rule, lambda batch: unsigned(batch["image"]), [normals])
    flat = torch.zeros(1, 1, 8, 8)  # redrawn better than any normal
    prediction = fitted(flat, unsigned(flat))
    assert prediction.anomaly_score.item() == 0
    bright = torch.full((1, 1, 8, 8), 0.9)
    assert fitted(bright, unsigned(bright)).anomaly_score.item() > 3


def test_volumes() -> None:
    image = pictures(3, (1, 8, 9, 10))
    fitted = MapScore.fit(ScoreRule("map", smooth=8.0, standardise="place"), score, [image])
    assert fitted(image, drawn(image)).anomaly_map.shape == image.shape
