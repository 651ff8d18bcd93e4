"""Features of normals at each place: by brute force, each normal by the others, and a score that is the sum of two."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_lab.evaluation.map_score import FILE, MapScore, _deviation
from anomaly_lab.evaluation.memory import Memory
from anomaly_lab.experiment.config import ScoreRule
from anomaly_lab.metrics.ranking import auroc
from anomaly_lab.networks.places import pooled
from anomaly_lab.types import Batch, Prediction, UserError

RULE = ScoreRule("map", smooth=1.0, standardise="place", pool="max", features=True, share=0.1)


def pictures(count: int, side: int = 32, seed: int = 0) -> Tensor:
    levels = np.random.default_rng(seed).integers(64, 192, (count, 1, side, side))
    return torch.from_numpy((levels / 127.5 - 1).astype(np.float32))


def drawn(image: Tensor) -> Prediction:
    return Prediction(torch.full((len(image),), 9.0), None, torch.zeros_like(image))


def score(batch: Batch) -> Prediction:
    return drawn(batch["image"])


@pytest.mark.parametrize("opposite", [False, True])
def test_distances_by_brute_force(opposite: bool) -> None:
    """Also at the border, where all there is may point the other way."""
    memory, normals, new = Memory((1, 64, 64), weights="random"), pictures(3, 64), pictures(2, 64, seed=1)
    memory.add(normals)
    seen = memory._seen(new)
    if opposite:
        memory.rows = -seen
    count, height, width = len(new), *seen.shape[2:]
    expected = torch.empty(count, height, width)
    for b, i, j in torch.cartesian_prod(torch.arange(count), torch.arange(height), torch.arange(width)).tolist():
        near = memory.rows[:, :, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
        expected[b, i, j] = (near - seen[b, :, i, j].view(1, -1, 1, 1)).norm(dim=1).min()
    torch.testing.assert_close(memory.distances(new), expected, atol=2e-4, rtol=1e-3)


def test_a_row_that_is_the_image_itself_does_not_count() -> None:
    normals = pictures(4)
    memory, others = Memory((1, 32, 32)), Memory((1, 32, 32))
    memory.add(normals)
    others.add(normals[1:])
    assert memory.distances(normals).amax() < 2e-3
    left_out = memory.distances(normals[:2], own=[0, None])
    torch.testing.assert_close(left_out[:1], others.distances(normals[:1]), atol=1e-4, rtol=1e-4)
    assert left_out[1].amax() < 2e-3


def test_the_score_is_the_sum_of_both_terms_in_deviations_of_normals() -> None:
    normals, new = pictures(9), pictures(3, seed=5)
    fitted = MapScore.fit(RULE, score, normals.split(4))
    alone = MapScore.fit(ScoreRule("map", smooth=1.0, standardise="place", pool="max"), score, [normals])
    terms = torch.empty(9, 2)
    for i in range(9):
        others = torch.cat([normals[:i], normals[i + 1 :]])
        memory = Memory((1, 32, 32))
        memory.add(others)
        terms[i, 0] = alone(normals[i : i + 1], drawn(normals[i : i + 1])).anomaly_score
        terms[i, 1] = pooled(memory.distances(normals[i : i + 1]), 0.1)
    memory = Memory((1, 32, 32))
    memory.add(normals)
    found = torch.stack([alone(new, drawn(new)).anomaly_score, pooled(memory.distances(new), 0.1)], 1)
    expected = (found / terms.std(0)).sum(1)
    prediction = fitted(new, drawn(new))
    torch.testing.assert_close(prediction.anomaly_score, expected, atol=1e-3, rtol=1e-3)
    assert prediction.components is not None
    torch.testing.assert_close(prediction.components, found, atol=1e-4, rtol=1e-3)
    assert fitted.components == ("map", "features")
    own_map = alone(new, drawn(new)).anomaly_map
    assert own_map is not None
    assert prediction.anomaly_map is not None
    far = F.interpolate(memory.distances(new)[:, None], size=(32, 32), mode="bilinear")
    both = own_map / terms[:, 0].std() + far / terms[:, 1].std()
    torch.testing.assert_close(prediction.anomaly_map, both, atol=1e-2, rtol=1e-3)
    known = fitted(normals, drawn(normals)).components
    assert known is not None
    torch.testing.assert_close(known, terms, atol=1e-4, rtol=1e-3)  # a measured normal is judged by the others


def test_how_large_a_term_is_say_normals_that_did_not_train_and_how_it_varies_all() -> None:
    known, held_out = torch.tensor([[1.0, 10.0], [3.0, 10.0]]), torch.tensor([[8.0, 20.0], [12.0, 20.0]])
    # relative to their means .5, 1.5 and .8, 1.2: √((.25 + .25 + .04 + .04) / 2) of 10; the other term does not vary
    assert _deviation(known, held_out).tolist() == pytest.approx([10 * 0.29**0.5, 0.2])
    assert _deviation(known, torch.zeros(0, 2)).tolist() == pytest.approx([2 * 0.5**0.5, 0.1])
    memorised = torch.tensor([[0.0, 10.0], [0.0, 10.0]])  # the map says nothing of how it varies
    assert _deviation(memorised, held_out)[0].item() == pytest.approx(10 * 0.08**0.5)


def test_a_detector_that_knows_its_normals_by_heart_has_no_map_that_outweighs_all() -> None:
    normals, held_out = pictures(9), pictures(6, seed=3)
    known = {image.numpy().tobytes() for image in normals}

    def memorised(batch: Batch) -> Prediction:
        redrawn = [one if one.numpy().tobytes() in known else one / 2 for one in batch["image"]]
        return Prediction(torch.zeros(len(redrawn)), None, torch.stack(redrawn))

    rule = replace(RULE, standardise="none")
    fitted = MapScore.fit(rule, memorised, [normals], held_out=[held_out])
    terms = fitted(held_out, memorised(Batch(image=held_out))).components
    assert terms is not None
    assert fitted.deviation[0].item() == pytest.approx(terms[:, 0].std().item())
    assert MapScore.fit(rule, memorised, [normals]).deviation[0] < 1e-5


def test_features_find_what_the_reconstruction_redraws() -> None:
    """A detector that copies its input has no residual at all; the second look still tells a pasted square."""
    grid = torch.linspace(-1, 1, 64)
    normals = torch.stack([(grid[:, None] + grid[None] * shift).clamp(-1, 1)[None] for shift in torch.rand(20)])
    odd = normals[:8].clone()
    odd[..., 20:36, 30:46] = 0.9

    def copied(batch: Batch) -> Prediction:
        return Prediction(torch.zeros(len(batch["image"])), None, batch["image"].clone())

    fitted = MapScore.fit(RULE, copied, [normals[8:]])
    both = torch.cat([normals[:8], odd])
    scores = fitted(both, copied(Batch(image=both))).anomaly_score
    assert auroc(np.repeat([0, 1], 8), scores.numpy()) == 1.0


def test_each_picture_is_remembered_once_and_no_more_than_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    normals = pictures(5)
    fitted = MapScore.fit(RULE, score, [torch.cat([normals, normals[:2]])])
    assert fitted.memory is not None
    assert (len(fitted.memory.rows), len(fitted.known), fitted.count) == (5, 5, 7)
    monkeypatch.setattr("anomaly_lab.evaluation.memory.MAX_NORMALS", 3)
    few = MapScore.fit(RULE, score, normals.split(2))
    assert few.memory is not None
    assert (len(few.memory.rows), len(few.known)) == (3, 5)
    distances = few(normals, drawn(normals)).components
    assert distances is not None
    assert distances[:, 1].amin() > 1e-3  # a remembered normal is left out for itself, others have all three
    torch.testing.assert_close(few.memory.distances(normals[3:], own=[3, 4]), few.memory.distances(normals[3:]))


def test_it_is_kept_with_the_run(tmp_path: Path) -> None:
    normals, new = pictures(5), pictures(3, seed=2)
    fitted = MapScore.fit(RULE, score, [normals])
    fitted.save(tmp_path)
    for image in (new, normals):
        again = MapScore.load(RULE, tmp_path)(image, drawn(image))
        assert torch.equal(again.anomaly_score, fitted(image, drawn(image)).anomaly_score)
    with np.load(tmp_path / FILE) as kept:
        arrays = dict(kept)
    np.savez(tmp_path / FILE, **{**arrays, "weights": "other"})
    with pytest.raises(UserError, match=r"features are of other weights.*make evaluate"):
        MapScore.load(RULE, tmp_path)
    del arrays["rows"]
    np.savez(tmp_path / FILE, **arrays)
    with pytest.raises(UserError, match=r"cannot be read.*make evaluate"):
        MapScore.load(RULE, tmp_path)


def test_new_images_are_judged_by_all() -> None:
    normals = pictures(6)
    fitted = MapScore.fit(RULE, score, [normals]).for_new_images()
    found = fitted(normals, drawn(normals)).components
    assert found is not None
    assert found[:, 1].amax() < 2e-3


def test_a_score_does_not_depend_on_the_batch() -> None:
    fitted, new = MapScore.fit(RULE, score, [pictures(9)]), pictures(6, seed=1)
    alone = torch.cat([fitted(one[None], drawn(one[None])).anomaly_score for one in new])
    torch.testing.assert_close(fitted(new, drawn(new)).anomaly_score, alone, rtol=1e-5, atol=1e-5)


def test_a_large_picture_is_shrunk_so_that_the_memory_stays_small() -> None:
    memory = Memory((1, 256, 512), weights="random")
    assert memory.rows.shape[2:] == (8, 16)


def test_volumes_are_refused() -> None:
    with pytest.raises(UserError, match=r"not volumes; set score\.features=false"):
        Memory((1, 8, 8, 8), weights="random")
