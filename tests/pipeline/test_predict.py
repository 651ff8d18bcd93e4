"""New files are scored as the store's were, and maps come back in the space of the scan."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from data_sections import sections
from PIL import Image
from scipy.ndimage import binary_fill_holes
from sklearn.metrics import roc_auc_score

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.datasets.headct import HeadCT
from anomaly_lab.data.datasets.nifti import Nifti
from anomaly_lab.data.preprocessing.patches import shares
from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.pipeline.predict import new_cases, predict_files
from anomaly_lab.pipeline.scorer import Scorer
from anomaly_lab.types import Batch, Case, Prediction, UserError


class Brightness:
    """Says of every pixel how bright it is, from 0 to 2."""

    device = torch.device("cpu")

    def score(self, batch: Batch) -> Prediction:
        bright = batch["image"].mean(1, keepdim=True) + 1
        return Prediction(bright.flatten(1).mean(1), bright)


class Alarm(Brightness):
    """Minus ten and the brightest pixel, as a critic would say it: no map."""

    def score(self, batch: Batch) -> Prediction:
        return Prediction(batch["image"].flatten(1).amax(1) - 10)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    lines = ["id,patient,split,label,score,p_value,pred_label", *(f"v{i},v{i},val,0,0.{i},," for i in range(1, 5))]
    (run / "scores.csv").write_text("\n".join([*lines, "t,t,test,1,0.9,,"]) + "\n")
    unit = {"judged": "patch", "rule": "none", "top_k": 10}
    (run / "metrics.json").write_text(json.dumps({"threshold": {"value": 0.35}, "unit": unit}))
    return run


def predict(run: Path, data: PatchDataModule, detector: Any, cases: list[Case], out: Path) -> Path:
    """As the command does, with a detector of the test's own."""
    metrics, scores = json.loads((run / "metrics.json").read_text()), Scores.read(run / "scores.csv")
    scorer = Scorer(data, detector, metrics, scores.score[scores.normals], data.facts()["bits"])
    return predict_files(run.name, scorer, cases, out)


def _scores(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "scores.csv").open() as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def _volumes(tmp_path, **changes):
    arguments = {"root": str(tmp_path / "none"), "source": "twin", "twin_size": 80, "batch_size": 4}
    arguments |= {"patch_size": (16, 16), "cut": {"label": "mask", "overlap": 0.5}, "volume": {"zscore": 3.0}}
    data = Nifti(**sections(**(arguments | {"store_dir": str(tmp_path / "store")} | changes)))
    data.setup()
    return data


@pytest.mark.parametrize("changes", [{}, {"patch_size": (8, 8, 8), "cut": {"label": "mask", "overlap": 0.5}}])
def test_map_of_a_volume_lies_on_the_scans_own_grid(tmp_path, run, changes):
    data = _volumes(tmp_path, **changes)
    case = data.store_plan.cases[0]
    out = predict(run, data, Brightness(), new_cases(case.image), tmp_path / "out")
    scan, found = nibabel.load(case.image), nibabel.load(out / "maps" / f"{case.image.name.split('.')[0]}.nii.gz")
    assert found.shape == scan.shape
    assert np.allclose(found.affine, scan.affine, atol=1e-5)
    values, bright = np.asarray(scan.dataobj, float), np.asarray(found.dataobj)
    brain = values != 0
    expected = ((values - values[brain].mean()) / (3 * values[brain].std()) + 1).clip(0, 2)
    assert np.allclose(bright, expected, atol=1e-3)
    row = _scores(out)[case.image.name]
    assert float(row["score"]) > 0.35
    assert row["pred_label"] == "1"


def _judged_by_alarm(run: Path) -> None:
    """Held-out normals from -10.9 to -10.0, and a threshold in the middle of them."""
    table = (run / "scores.csv").read_text()
    for i, score in enumerate(("-10.9", "-10.6", "-10.3", "-10.0"), 1):
        table = table.replace(f",0.{i},", f",{score},")
    (run / "scores.csv").write_text(table)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"threshold": {"value": -10.4}}))


def test_scores_slide_over_a_volume_where_there_is_no_map(tmp_path, run):
    _judged_by_alarm(run)
    data = _volumes(tmp_path, volume={"zscore": 3.0, "axcodes": "IPL"})
    case = data.store_plan.cases[0]
    out = predict(run, data, Alarm(), new_cases(case.image), tmp_path / "out")
    found = nibabel.load(out / "maps" / f"{case.image.name.split('.')[0]}.nii.gz")
    scan = nibabel.load(case.image)
    assert found.shape == scan.shape
    assert np.allclose(found.affine, scan.affine, atol=1e-5)
    cut, _ = data.scoring_plan(16).patches(case)
    total, count = np.zeros(cut.scan.pixels.shape[1:]), np.zeros(cut.scan.pixels.shape[1:])
    top = np.iinfo(cut.scan.pixels.dtype).max
    for i, j, k in cut.windows.location:
        window = (slice(i, i + 1), slice(j, j + 16), slice(k, k + 16))
        score = cut.scan.pixels[0][window].max() / top * 2 - 1 - 10
        total[window] += max(0, score + 10.9) / 0.5
        count[window] += 1
    by_hand, stored = np.sort((total / count).ravel()), np.sort(np.asarray(found.dataobj).ravel())
    assert np.allclose(by_hand, stored, atol=1e-3)


class Darkness(Brightness):
    """Score and map: how dark the pixels are, so that background is the most anomalous of all."""

    def score(self, batch: Batch) -> Prediction:
        dark = 1 - batch["image"].mean(1, keepdim=True)
        return Prediction(dark.flatten(1).mean(1), dark)


def test_background_has_no_map_and_no_say_where_the_run_never_saw_any(tmp_path, run):
    data = _volumes(tmp_path, cut={"label": "mask", "overlap": 0.5, "foreground": 0.5})
    case = data.store_plan.cases[0]
    out = predict(run, data, Darkness(), new_cases(case.image), tmp_path / "out")
    found = np.asarray(nibabel.load(out / "maps" / f"{case.image.name.split('.')[0]}.nii.gz").dataobj)
    brain = np.asarray(nibabel.load(case.image).dataobj) != 0
    assert (found[~brain] == 0).all()
    assert (found[brain] > 0).mean() > 0.9
    cut, _ = data.scoring_plan(16).patches(case)
    share = shares(cut.scan.foreground, cut.windows.location, cut.extent)
    assert 0 < share.min() < 0.5
    patches = np.concatenate([block for block, _ in cut.blocks()])
    dark = Darkness().score(Batch(image=to_float(patches))).anomaly_score.numpy()
    assert float(_scores(out)[case.image.name]["score"]) == pytest.approx(dark[share >= 0.5].max(), rel=1e-6)
    assert dark.max() > dark[share >= 0.5].max()


def test_one_window_and_no_map_leave_the_score_alone(tmp_path, run):
    headct = {"root": str(tmp_path / "none"), "source": "twin", "twin_size": 30, "patch_size": (8, 8), "batch_size": 4}
    data = HeadCT(**sections(**headct, train_normals=10, store_dir=str(tmp_path / "store")))
    data.setup()
    Image.fromarray(np.tile(np.arange(20, dtype=np.uint8), (20, 1))).save(tmp_path / "a.png")
    out = predict(run, data, Alarm(), new_cases(tmp_path / "a.png"), tmp_path / "out")
    assert set(_scores(out)) == {"a.png"}
    assert not (out / "maps").exists()


def test_pictures_of_a_folder_are_scored_with_p_values_and_maps(tmp_path, run):
    headct = {"root": str(tmp_path / "none"), "source": "twin", "twin_size": 30, "patch_size": (8, 8), "batch_size": 4}
    data = HeadCT(**sections(**headct, train_normals=10, store_dir=str(tmp_path / "store")))
    data.setup()
    folder = tmp_path / "new ones"
    (folder / "ä").mkdir(parents=True)
    for name, grey in (("a.png", 20), ("ä/b.jpg", 60)):
        pixels = np.full((20, 20), grey, np.uint8)
        pixels[:10] += 8
        Image.fromarray(pixels).save(folder / name)
    out = predict(run, data, Brightness(), new_cases(folder), tmp_path / "out")
    rows = _scores(out)
    assert set(rows) == {"a.png", "ä/b.jpg"}
    assert [rows[name]["pred_label"] for name in ("a.png", "ä/b.jpg")] == ["0", "1"]
    assert float(rows["a.png"]["p_value"]) == pytest.approx((1 + 3) / 5)
    assert np.asarray(Image.open(out / "maps" / "ä" / "b.jpg.png")).shape == (8, 8)


def test_case_is_scored_by_the_rule_of_the_run(tmp_path, run):
    data = _volumes(tmp_path)
    scores = {}
    for rule in ("mean", "max"):
        unit = {"judged": "case", "rule": rule, "top_k": 10}
        (run / "metrics.json").write_text(json.dumps({"threshold": {"value": 0.35}, "unit": unit}))
        out = predict(run, data, Brightness(), new_cases(data.store_plan.cases[0].image), tmp_path / rule)
        scores[rule] = float(next(iter(_scores(out).values()))["score"])
    assert scores["max"] > scores["mean"]


def test_nothing_to_score_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no pictures, NIfTI volumes or DICOM"):
            new_cases(source)


def test_broken_file_leaves_nothing(tmp_path, run):
    data = _volumes(tmp_path)
    (tmp_path / "bad.nii.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(UserError, match=r"bad\.nii\.gz"):
        predict(run, data, Brightness(), new_cases(tmp_path / "bad.nii.gz"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_known_lesions_are_outlined_and_compared_but_never_used(tmp_path, run):
    data = _volumes(tmp_path)
    case = next(case for case in data.store_plan.cases if np.asarray(nibabel.load(case.mask).dataobj).any())
    plain = predict(run, data, Brightness(), new_cases(case.image), tmp_path / "plain")
    cases = new_cases(case.image, case.mask)
    out = predict(run, data, Brightness(), cases, tmp_path / "out")
    assert (out / "scores.csv").read_text() == (plain / "scores.csv").read_text()
    page, without = (out / "index.html").read_text(), (plain / "index.html").read_text()
    assert 'class="lesion"' in page
    assert 'class="lesion"' not in without
    values = np.asarray(nibabel.load(out / "maps" / f"{case.image.name.split('.')[0]}.nii.gz").dataobj)
    lesion, brain = np.asarray(nibabel.load(case.mask).dataobj) != 0, np.asarray(nibabel.load(case.image).dataobj) != 0
    inside = binary_fill_holes(brain) | lesion
    shown = float(re.search(r'against the lesion <b class="num">([\d.]+)', page)[1])
    assert shown == pytest.approx(roc_auc_score(lesion[inside], values[inside]), abs=2e-3)


def test_a_folder_of_masks_is_matched_by_name(tmp_path):
    for folder, names in (("images", "ab"), ("masks", "b")):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / folder / f"{name}.png")
    a, b = new_cases(tmp_path / "images", tmp_path / "masks")
    assert (a.mask, b.mask) == (None, tmp_path / "masks" / "b.png")
    (tmp_path / "masks" / "b.png").rename(tmp_path / "masks" / "c.png")
    with pytest.raises(UserError, match="no mask is named"):
        new_cases(tmp_path / "images", tmp_path / "masks")


def test_without_held_out_normals_a_scan_is_measured_by_itself(tmp_path, run):
    (run / "scores.csv").write_text("id,patient,split,label,score,p_value,pred_label\nt,t,test,1,0.9,,\n")
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"threshold": {"value": None}}))
    data = _volumes(tmp_path)
    case = data.store_plan.cases[0]
    out = predict(run, data, Alarm(), new_cases(case.image), tmp_path / "out")
    found = np.asarray(nibabel.load(out / "maps" / f"{case.image.name.split('.')[0]}.nii.gz").dataobj)
    assert (found.min(), found.max()) == (0, 1)
    assert _scores(out)[case.image.name]["pred_label"] == ""
    assert "No validation normals" in (out / "index.html").read_text()


def test_what_is_not_scored_is_listed(tmp_path, capsys):
    for name in ("a.WEBP", "b.gif", "._a.webp", "notes.txt"):
        (tmp_path / name).touch()
    assert [case.id for case in new_cases(tmp_path)] == ["a.WEBP"]
    said = " ".join(capsys.readouterr().err.split())
    assert "left out, because they are not of a kind that is read or their names are not UTF-8: b.gif, notes" in said
