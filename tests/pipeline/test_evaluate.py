"""Which cases a run keeps pictures of, and which its maps are measured on."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data.conftest import write_headct
from pipeline.conftest import settings
from toy_scores import example

from anomaly_lab.evaluation.baselines.fitted import Baselines
from anomaly_lab.evaluation.map_score import MapScore
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import record
from anomaly_lab.lesions.planting import TUNING
from anomaly_lab.metrics.segmentation import pointing
from anomaly_lab.pipeline import engine, evaluate, run_commands
from anomaly_lab.pipeline.evaluate import (
    GALLERY_CASES,
    MISSED_SIDE,
    _extremes,
    _fixed,
    _missed,
    _pixels,
    _score_of_new,
    _write_missed,
)
from anomaly_lab.pipeline.identity import AS_RECORDED
from anomaly_lab.reports.gallery import FIXED_CASES, MISSED, read_gallery


def test_the_extremes_of_every_kind_are_kept() -> None:
    scores = example()
    threshold = float(np.quantile(scores.score[scores.normals], 0.95))
    test = scores.of("test")
    for kind, label, flagged in (("tp", 1, True), ("fp", 0, True), ("tn", 0, False), ("fn", 1, False)):
        kept = [i for found, i in _extremes(scores, threshold) if found == kind]
        of_kind = test & (scores.label == label) & ((scores.score > threshold) == flagged)
        assert all(of_kind[i] for i in kept)
        assert len(kept) == min(GALLERY_CASES, of_kind.sum())
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
    assert labels == [1] * FIXED_CASES + [0] * FIXED_CASES
    assert all(one.of("test")[i] for _, i in _fixed(one))
    assert _extremes(one, None) == []


def test_maps_are_measured_on_test_cases_whose_lesion_is_known() -> None:
    """Row 0 is held out, rows 1 to 6 are judged, the lesion of row 6 is unknown; b has two cases."""
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.normal(size=(7, 1, 6, 6))).float()
    mask = np.zeros((7, 1, 6, 6), bool)
    mask[3:, :, 2:4, 2:4] = True
    scored = {"row": np.arange(7), "anomaly_map": random.random(mask.shape).astype(np.float32), "mask": mask}
    patient = np.array(["v", "a", "b", "b", "c", "d", "e"])
    unmasked = np.arange(7) == 6
    index = SimpleNamespace(has_role=lambda role: unmasked, columns={"patient": patient.tolist()})
    store = SimpleNamespace(index=index, batch=lambda rows: {"image": images[rows]})
    data = SimpleNamespace(rows={"val": np.array([0]), "test": np.arange(1, 7)}, store=store)
    baselines = Baselines.fit([torch.from_numpy(random.normal(size=(9, 1, 6, 6))).float()])
    found = _pixels(scored, data, baselines)
    judged = slice(1, 6)
    expected = pointing(scored["anomaly_map"][judged], mask[judged], patient[judged])
    assert found is not None
    assert (found["num_masks"], found["patients"]) == (3, 4)
    assert found["auroc"]["value"] == expected.figures["auroc"]
    by_mean = pointing(baselines.maps(images[judged])["mean_image"].numpy(), mask[judged], patient[judged])
    assert found["baselines"]["mean_image"]["pro"]["value"] == pytest.approx(by_mean.figures["pro"])
    assert _pixels({"row": np.arange(7), "anomaly_map": scored["anomaly_map"]}, data, baselines) is None


def test_planted_lesions_are_measured_if_asked_and_move_nothing_else(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    runs = [
        engine.train(settings(tmp_path, "detector.encoder_iterations=2", f"evaluation.planted={asked}"))
        for asked in ("false", "true")
    ]
    plain, asked = (record.read_metrics(run) for run in runs)
    assert plain.pop("planted") is None
    found = asked.pop("planted")
    assert {"detector", "pca_32"} <= set(found)
    assert set(found["detector"]["kinds"]) == {kind.name for kind in TUNING}
    assert all(0 <= each["auroc"] <= 1 for each in found.values())
    assert plain == asked
    assert (runs[0] / "scores.csv").read_bytes() == (runs[1] / "scores.csv").read_bytes()


def test_planted_lesions_are_not_judged_by_the_normals_they_are_planted_on(tmp_path: Path) -> None:
    """Validation normals that measured the places would be known, and the same with a lesion would not."""
    write_headct(tmp_path / "headct", normal=20)
    words = ["score.from=map", "score.standardise=place", "score.normals=validation", "evaluation.planted=true"]
    words += ["data.split.train_normals=14", "data.split.val_fraction=0.4"]
    run = engine.train(settings(tmp_path, "detector.encoder_iterations=2", *words))
    data, detector, _ = run_commands._trained(run, configuration.recall(run / "config.yaml"), AS_RECORDED)
    rule = configuration.score_rule_of(configuration.recall(run / "config.yaml"))
    detector.rescored = MapScore.fit(rule, detector.score, data.images("val"))
    image = next(iter(data.images("val")))
    moved = image.clone()
    moved[:, :, 0, 0] += 2 / 255  # another picture by its digest
    score = _score_of_new(data, detector)
    own, other = (score({"image": each}).anomaly_score for each in (image, moved))
    assert torch.allclose(own, other, rtol=0.02)
    own, other = (detector.score({"image": each}).anomaly_score for each in (image, moved))
    assert not torch.allclose(own, other, rtol=0.02)
    by_training = replace(detector.rescored.rule, normals="training")
    detector.rescored = MapScore.fit(by_training, score, [image])
    assert _score_of_new(data, detector) == detector.score


def test_all_missed_cases_are_kept_up_to_a_number_lowest_scores_first(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = example()
    threshold = float(np.quantile(scores.score, 0.9))
    missed = _missed(scores, threshold)
    assert set(missed) == set(np.flatnonzero(scores.of("test") & (scores.label == 1) & (scores.score <= threshold)))
    assert len(missed) > GALLERY_CASES
    assert np.all(np.diff(scores.score[missed]) >= 0)
    monkeypatch.setattr(evaluate, "MOST_MISSED", 3)
    assert _missed(scores, threshold) == missed[:3]
    assert _missed(scores, None) == []


@pytest.mark.parametrize(("side", "kept"), [(6, 6), (2 * MISSED_SIDE, MISSED_SIDE)])
def test_missed_cases_have_small_pictures_and_the_maps_that_were_there(tmp_path: Path, side: int, kept: int) -> None:
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.uniform(-1, 1, (5, 1, side, side))).float()
    mask = torch.zeros(5, 1, side, side, dtype=torch.bool)
    mask[:, :, : side // 2] = True
    maps = random.random((3, 1, side, side)).astype(np.float32)
    store = SimpleNamespace(batch=lambda rows: {"image": images[rows], "mask": mask[rows]})
    data = SimpleNamespace(store=store, patch_size=(side, side))
    (tmp_path / "samples").mkdir()
    path = tmp_path / "samples" / MISSED
    _write_missed(path, [("b", 4), ("a", 2)], data, {"row": np.array([1, 2, 4]), "anomaly_map": maps})
    found = read_gallery(tmp_path, MISSED)
    assert found["id"].tolist() == ["b", "a"]
    assert found["image"].shape == found["mask"].shape == found["anomaly_map"].shape == (2, 1, kept, kept)
    assert found["mask"][:, :, : kept // 2].all()
    assert not found["mask"][:, :, kept // 2 :].any()
    share = side // kept
    mean = maps[[2, 1]].reshape(2, 1, kept, share, kept, share).mean((3, 5))
    assert np.allclose(found["anomaly_map"], mean, atol=1e-3)
    _write_missed(path, [("b", 4)], data, {"row": np.arange(5)})
    assert "anomaly_map" not in read_gallery(tmp_path, MISSED)  # nothing is scored for a picture
    _write_missed(path, [], data, {})
    assert not path.exists()  # none of an earlier threshold
