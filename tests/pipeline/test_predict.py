"""New files are scored as the store's were, and maps come back in the space of the scan."""

import csv
import errno
import json
import math
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from data_sections import sections
from dicom_files import dicom_slice, save
from PIL import Image
from scipy.ndimage import binary_fill_holes
from sklearn.metrics import roc_auc_score

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.datasets.abmnist import ABMNIST
from anomaly_lab.data.datasets.headct import HeadCT
from anomaly_lab.data.datasets.mias import MIAS
from anomaly_lab.data.datasets.nifti import Nifti
from anomaly_lab.data.datasets.oct2017 import OCT2017
from anomaly_lab.data.preprocessing.patches import shares
from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.evaluation.reference import Reference
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.config import Evaluation
from anomaly_lab.experiment.tables import defused
from anomaly_lab.pipeline.expected_input import ExpectedInput, describe
from anomaly_lab.pipeline.predict import (
    COLUMNS,
    NewFiles,
    Predicted,
    Request,
    _findings,
    _scale,
    asked,
    new_files,
    predict_files,
)
from anomaly_lab.pipeline.prediction_folder import opened
from anomaly_lab.pipeline.scorer import ScoredScan, Scorer
from anomaly_lab.reports.prediction_page import Scoring
from anomaly_lab.types import Batch, Case, Prediction, UserError

STORE = Path(tempfile.mkdtemp())  # of all tests: twins and stores are the same


@pytest.fixture(scope="module", autouse=True)
def _store() -> Iterator[None]:
    yield
    shutil.rmtree(STORE)


class Brightness:
    """Says of every pixel how bright it is, from 0 to 2."""

    device = torch.device("cpu")
    supervised = False

    def score(self, batch: Batch) -> Prediction:
        bright = batch["image"].mean(1, keepdim=True) + 1
        return Prediction(bright.flatten(1).mean(1), bright)


class Alarm(Brightness):
    """Minus ten and the brightest pixel, as a critic would say it: no map."""

    def score(self, batch: Batch) -> Prediction:
        return Prediction(batch["image"].flatten(1).amax(1) - 10)


class Kinds(Brightness):
    """Says how probable two kinds are: the brightness and what it lacks."""

    supervised = True

    def score(self, batch: Batch) -> Prediction:
        bright = (batch["image"].flatten(1).mean(1) + 1) / 2
        return Prediction(bright, batch["image"].mean(1, keepdim=True) + 1, None, torch.stack([1 - bright, bright], 1))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    lines = ["id,patient,split,label,score,p_value,pred_label", *(f"v{i},v{i},val,0,0.{i},," for i in range(1, 5))]
    (run / "scores.csv").write_text("\n".join([*lines, "t,t,test,1,0.9,,"]) + "\n")
    unit = {"judged": "patch", "rule": "none", "top_k": 10}
    (run / "metrics.json").write_text(json.dumps({"threshold": {"value": 0.35}, "unit": unit}))
    return run


def scorer_of(run: Path, data: PatchDataModule, detector: Any) -> Scorer:
    """As `Scorer.open` makes it, with a detector of the test's own."""
    metrics, scores = json.loads((run / "metrics.json").read_text()), Scores.read(run / "scores.csv")
    reference = Reference.of(scores, metrics, Evaluation())
    return Scorer(data, detector, metrics["unit"], reference, data.facts()["bits"])


def complete(scorer: Scorer, request: Request, found: NewFiles | None = None) -> Predicted:
    """As the command does."""
    found = new_files(scorer.data, request) if found is None else found
    what = asked({"name": "a run", "id": "1f"}, scorer, request, found.cases)
    with opened(Path(str(request.out)), what, request.overwrite) as folder:
        return predict_files(scorer, found, folder, Scoring("a run", {}, {}, len(scorer.normals)), request.anyway)


def predict(run: Path, data: PatchDataModule, detector: Any, source: Path, out: Path) -> Path:
    return complete(scorer_of(run, data, detector), Request(source, out=str(out))).folder


def _scores(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "scores.csv").open() as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def _volumes(tmp_path, **changes):
    arguments = {"root": str(tmp_path / "none"), "source": "twin", "twin_size": 80, "batch_size": 4}
    arguments |= {"patch_size": (16, 16), "cut": {"label": "mask", "overlap": 0.5}, "volume": {"zscore": 3.0}}
    data = Nifti(**sections(**(arguments | {"store_dir": str(STORE)} | changes)))
    data.setup()
    return data


def _pictures(tmp_path: Path, **changes: Any) -> HeadCT:
    """Head CT, pictures of 8×8."""
    headct = {"root": str(tmp_path / "none"), "source": "twin", "twin_size": 30, "patch_size": (8, 8), "batch_size": 4}
    data = HeadCT(**sections(**headct, train_normals=10, store_dir=str(STORE), **changes))
    data.setup()
    return data


@pytest.mark.parametrize("changes", [{}, {"patch_size": (8, 8, 8), "cut": {"label": "mask", "overlap": 0.5}}])
def test_map_of_a_volume_lies_on_the_scans_own_grid(tmp_path, run, changes):
    data = _volumes(tmp_path, **changes)
    case = data.store_plan.cases[0]
    out = predict(run, data, Brightness(), case.image, tmp_path / "out")
    scan, found = nibabel.load(case.image), nibabel.load(out / "maps" / f"{case.image.name}.map.nii.gz")
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
    out = predict(run, data, Alarm(), case.image, tmp_path / "out")
    found = nibabel.load(out / "maps" / f"{case.image.name}.map.nii.gz")
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
    out = predict(run, data, Darkness(), case.image, tmp_path / "out")
    found = np.asarray(nibabel.load(out / "maps" / f"{case.image.name}.map.nii.gz").dataobj)
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


def test_slices_that_the_run_never_saw_have_no_say(tmp_path, run):
    data = _volumes(tmp_path, cut={"label": "mask", "overlap": 0.5, "slices": (0.25, 0.5)})
    scorer, case = scorer_of(run, data, Brightness()), data.store_plan.cases[0]
    scored = scorer.score(case)
    location, across = scored.cut.windows.location, scored.cut.across
    deep = scored.cut.scan.pixels.shape[1:][across] - 1
    patches = np.concatenate([block for block, _ in scored.cut.blocks()])
    bright = Brightness().score(Batch(image=to_float(patches))).anomaly_score.numpy()
    inside = (location[:, across] >= 0.25 * deep) & (location[:, across] <= 0.5 * deep)
    assert scored.score == pytest.approx(bright[inside].max(), rel=1e-6)
    assert bright.max() > bright[inside].max()


def test_page_and_table_say_which_scans_a_scan_is_compared_with(tmp_path, run):
    """Window by window, a normal scan was above the threshold and had the lowest p-value there is."""
    data, generator = _volumes(tmp_path), np.random.default_rng(0)
    case = data.store_plan.cases[0]
    windows = [(f"v{i}@0,{k}", f"v{i}", float(generator.uniform(0.2, 1.8))) for i in range(25) for k in range(40)]
    head, rows = (run / "scores.csv").read_text().splitlines()[0], [f'"{id}",{of},val,0,{s},,' for id, of, s in windows]
    (run / "scores.csv").write_text("\n".join([head, *rows, "t,t,test,1,0.9,,"]) + "\n")
    out = predict(run, data, Brightness(), case.image, tmp_path / "out")
    row, page = _scores(out)[case.image.name], (out / "index.html").read_text()
    assert (row["reference"], row["reason"]) == ("25 validation scans", "")
    highest = [max(score for _, of, score in windows if of == f"v{i}") for i in range(25)]
    assert float(row["p_value"]) == pytest.approx((1 + sum(s >= float(row["score"]) for s in highest)) / 26)
    assert row["pred_label"] == str(int(float(row["score"]) > sorted(highest)[24]))  # the 25th of 25, not the run's .35
    assert "Compared by scan" in page
    assert "<dt>Validation scans</dt><dd>25</dd>" in page
    assert f"<dt>Threshold</dt><dd>{sorted(highest)[24]:.4g}"[:30] in page
    (run / "scores.csv").write_text("\n".join([head, *rows[:40], "t,t,test,1,0.9,,"]) + "\n")
    few = complete(scorer_of(run, data, Brightness()), Request(case.image, out=str(tmp_path / "few")))
    row, page = _scores(few.folder)[case.image.name], (few.folder / "index.html").read_text()
    assert (row["reference"], row["pred_label"]) == ("1 validation scan (no label)", "")
    assert row["p_value"] in ("0.5", "1.0")
    assert "No label" in page
    assert "1 validation scan is too few" in page
    assert few.is_whole


class Mirror(Brightness):
    """Draws every image as its negative."""

    def score(self, batch: Batch) -> Prediction:
        return super().score(batch)._replace(reconstruction=-batch["image"])


def test_reconstructions_of_windows_become_one_of_the_scan(tmp_path, run):
    data = _volumes(tmp_path)
    case = data.store_plan.cases[0]
    scored = scorer_of(run, data, Mirror()).score(case)
    image = to_float(scored.cut.scan.pixels[None])[0].numpy()
    assert scored.reconstruction_seen is not None
    assert scored.reconstruction_seen.shape == image.shape
    assert np.allclose(scored.reconstruction_seen, -image, atol=1e-6)
    assert scorer_of(run, data, Brightness()).score(case).reconstruction_seen is None


def test_the_page_shows_the_counterparts_of_a_detector_that_reconstructs(tmp_path, run):
    data = _pictures(tmp_path)
    Image.fromarray(np.tile(np.arange(20, dtype=np.uint8) * 12, (20, 1))).save(tmp_path / "a.png")
    for detector, count in ((Mirror(), 1), (Brightness(), 0)):
        out = predict(run, data, detector, tmp_path / "a.png", tmp_path / type(detector).__name__)
        assert (out / "index.html").read_text().count('<div class="counterpart" ') == count


def test_one_window_and_no_map_leave_the_score_alone(tmp_path, run):
    data = _pictures(tmp_path)
    Image.fromarray(np.tile(np.arange(20, dtype=np.uint8), (20, 1))).save(tmp_path / "a.png")
    out = predict(run, data, Alarm(), tmp_path / "a.png", tmp_path / "out")
    assert set(_scores(out)) == {"a.png"}
    assert not (out / "maps").exists()


def test_pictures_of_a_folder_are_scored_with_p_values_and_maps(tmp_path, run):
    data = _pictures(tmp_path)
    folder = tmp_path / "new ones"
    (folder / "ä").mkdir(parents=True)
    for name, grey in (("a.png", 20), ("ä/b.jpg", 60)):
        pixels = np.full((20, 20), grey, np.uint8)
        pixels[:10] += 8
        Image.fromarray(pixels).save(folder / name)
    out = predict(run, data, Brightness(), folder, tmp_path / "out")
    rows = _scores(out)
    assert set(rows) == {"a.png", "ä/b.jpg"}
    assert [rows[name]["pred_label"] for name in ("a.png", "ä/b.jpg")] == ["0", "1"]
    assert float(rows["a.png"]["p_value"]) == pytest.approx((1 + 3) / 5)
    assert np.asarray(Image.open(out / "maps" / "ä" / "b.jpg.map.png")).shape == (20, 20)


def test_case_is_scored_by_the_rule_of_the_run(tmp_path, run):
    data = _volumes(tmp_path)
    scores = {}
    for rule in ("mean", "max"):
        unit = {"judged": "case", "rule": rule, "top_k": 10}
        (run / "metrics.json").write_text(json.dumps({"threshold": {"value": 0.35}, "unit": unit}))
        out = predict(run, data, Brightness(), data.store_plan.cases[0].image, tmp_path / rule)
        scores[rule] = float(next(iter(_scores(out).values()))["score"])
    assert scores["max"] > scores["mean"]


def test_nothing_to_score_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    data = _pictures(tmp_path)
    for source, message in (("empty", "no pictures, NIfTI volumes or DICOM"), ("nowhere", "there is no such file")):
        with pytest.raises(UserError, match=message):
            new_files(data, Request(tmp_path / source))


def test_known_lesions_are_outlined_and_compared_but_never_used(tmp_path, run):
    data = _volumes(tmp_path)
    case = next(case for case in data.store_plan.cases if np.asarray(nibabel.load(case.mask).dataobj).any())
    (tmp_path / "alone").mkdir()
    alone = shutil.copy(case.image, tmp_path / "alone")
    plain = predict(run, data, Brightness(), Path(alone), tmp_path / "plain")
    out = complete(scorer_of(run, data, Brightness()), Request(case.image, case.mask, str(tmp_path / "out"))).folder
    assert (out / "scores.csv").read_text() == (plain / "scores.csv").read_text()
    page, without = (out / "index.html").read_text(), (plain / "index.html").read_text()
    assert 'class="lesion"' in page
    assert 'class="lesion"' not in without
    values = np.asarray(nibabel.load(out / "maps" / f"{case.image.name}.map.nii.gz").dataobj)
    lesion, brain = np.asarray(nibabel.load(case.mask).dataobj) != 0, np.asarray(nibabel.load(case.image).dataobj) != 0
    inside = binary_fill_holes(brain) | lesion
    shown = float(re.search(r'against the lesion <b class="num">([\d.]+)', page)[1])
    assert shown == pytest.approx(roc_auc_score(lesion[inside], values[inside]), abs=2e-3)


def test_a_folder_of_masks_is_matched_by_name(tmp_path):
    for folder, names in (("images", "ab"), ("masks", "b")):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / folder / f"{name}.png")
    request = Request(tmp_path / "images", tmp_path / "masks")
    a, b = new_files(_pictures(tmp_path), request).cases
    assert (a.mask, b.mask) == (None, tmp_path / "masks" / "b.png")
    (tmp_path / "masks" / "b.png").rename(tmp_path / "masks" / "c.png")
    with pytest.raises(UserError, match="no mask is named"):
        new_files(_pictures(tmp_path), request)


def test_without_held_out_normals_a_scan_is_measured_by_itself(tmp_path, run):
    (run / "scores.csv").write_text("id,patient,split,label,score,p_value,pred_label\nt,t,test,1,0.9,,\n")
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"threshold": {"value": None}}))
    data = _volumes(tmp_path)
    case = data.store_plan.cases[0]
    out = predict(run, data, Alarm(), case.image, tmp_path / "out")
    found = np.asarray(nibabel.load(out / "maps" / f"{case.image.name}.map.nii.gz").dataobj)
    assert (found.min(), found.max()) == (0, 1)
    assert _scores(out)[case.image.name]["pred_label"] == ""
    assert "No validation normals" in (out / "index.html").read_text()


def test_what_is_not_scored_is_listed(tmp_path):
    for name in ("a.WEBP", "b.gif", "._a.webp", "notes.txt"):
        (tmp_path / name).touch()
    found = new_files(_pictures(tmp_path), Request(tmp_path))
    assert [case.id for case in found.cases] == ["a.WEBP"]
    assert found.left_out == dict.fromkeys(["b.gif", "notes.txt"], "not a kind of file that is read")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Pictures, of which some cannot be read, a folder of them that is linked, and a file that is none."""
    folder = tmp_path / "mixed"
    (folder / "inner").mkdir(parents=True)
    for number in range(9):
        pixels = np.full((20, 30), 20 * number, np.uint8)
        pixels[:10, :number] += 40
        Image.fromarray(pixels).save(folder / f"inner/{number}.png")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(folder / "black.png")
    (folder / "=torn.png").write_bytes((folder / "inner/1.png").read_bytes()[:60])
    Image.fromarray(np.full((20, 30), 255, np.uint8) - np.eye(20, 30, dtype=np.uint8)).save(folder / "white.png")
    (folder / "notes.txt").touch()
    (folder / "linked").symlink_to(folder / "inner")
    return folder


class Fallible(Brightness):
    """Gives no number for white pictures."""

    def score(self, batch: Batch) -> Prediction:
        score, bright, *_ = super().score(batch)
        assert bright is not None
        return Prediction(torch.where(bright.flatten(1).amax(1) > 1.9, torch.nan, score), bright)


def test_a_bad_file_is_a_row_with_its_reason_and_the_others_are_scored(tmp_path, run, mixed):
    predicted = complete(scorer_of(run, _pictures(tmp_path), Fallible()), Request(mixed, out=str(tmp_path / "out")))
    rows = _scores(tmp_path / "out")
    assert list(rows) == [defused(finding.id) for finding in predicted.findings]
    reasons = {name: row["reason"] for name, row in rows.items() if not row["score"]}
    assert set(reasons) == {"'=torn.png", "black.png", "white.png", "inner/0.png", "linked/0.png"}
    assert "truncated" in reasons["'=torn.png"]
    assert "constant" in reasons["black.png"]
    assert "the score is not finite" in reasons["white.png"]
    assert not any("on_bad" in reason or str(tmp_path) in reason for reason in reasons.values())
    assert all(rows[name]["pred_label"] == "" for name in reasons)
    assert len(rows) == 21
    assert not predicted.is_whole
    assert [finding.id for finding in predicted.not_scored] == ["=torn.png", *sorted(set(reasons) - {"'=torn.png"})]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "21 files" in page
    assert "5 not scored" in page
    assert "notes.txt" in page


class Panic(BaseException):
    """As decoders written in Rust raise it."""


@pytest.mark.parametrize("error", [Panic("index out of bounds"), ValueError("odd"), MemoryError()])
def test_what_a_reader_raises_costs_one_file(tmp_path, run, mixed, monkeypatch, error):
    data = _pictures(tmp_path)

    def read(case: Case) -> Scan:
        if case.id == "inner/3.png":
            raise error
        return HeadCT.read_new(data, case)

    monkeypatch.setattr(data, "read_new", read)
    complete(scorer_of(run, data, Brightness()), Request(mixed / "inner", out=str(tmp_path / "inner only")))
    complete(scorer_of(run, data, Brightness()), Request(mixed, out=str(tmp_path / "out")))
    assert type(error).__name__ in _scores(tmp_path / "out")["inner/3.png"]["reason"]
    assert _scores(tmp_path / "out")["inner/4.png"]["score"]
    assert _scores(tmp_path / "inner only")["3.png"]["score"]


class Stop(SystemExit):
    """A signal."""


@pytest.mark.parametrize(("batch", "after"), [(1, 0), (1, 11), (4, 3), (4, 11)])
def test_a_prediction_that_was_stopped_ends_in_the_same_bytes(run, mixed, monkeypatch, batch, after):
    tmp_path, data = mixed.parent, _pictures(mixed.parent)
    data.scoring_batch_size = batch
    scorer = scorer_of(run, data, Brightness())
    complete(scorer, Request(mixed, out=str(tmp_path / "straight")))
    request = Request(mixed, out=str(tmp_path / "stopped"))
    calls = iter(range(after))

    def read(case: Case) -> Scan:
        if next(calls, None) is None:
            raise Stop(143)
        return HeadCT.read_new(data, case)

    with monkeypatch.context() as patch:
        patch.setattr(data, "read_new", read)
        with pytest.raises(Stop):
            complete(scorer_of(run, data, Brightness()), request)
    rows = (tmp_path / "stopped" / "scores.csv").read_text().splitlines()
    assert after - batch < len(rows) - 1 <= after  # readers see whatever was done
    with (tmp_path / "stopped" / "scores.csv").open("a") as file:
        file.write("half a ro")  # as a kill leaves it
    complete(scorer_of(run, data, Brightness()), request)
    assert content(tmp_path / "stopped") == content(tmp_path / "straight")


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_the_same_command_goes_on(tmp_path, run, mixed, monkeypatch):
    data = _pictures(tmp_path)
    scorer = scorer_of(run, data, Brightness())

    def stop(case: Case) -> Scan:
        raise Stop(143)

    with monkeypatch.context() as patch:
        patch.setattr(data, "read_new", stop)
        with pytest.raises(Stop):
            complete(scorer_of(run, data, Brightness()), Request(mixed, out=str(tmp_path / "out")))
    with pytest.raises(UserError, match=r"another command \(input, content\)"):
        complete(scorer, Request(mixed / "inner", out=str(tmp_path / "out")))
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(mixed / "inner" / "0.png")
    with pytest.raises(UserError, match=r"another command \(content\)"):
        complete(scorer, Request(mixed, out=str(tmp_path / "out")))
    complete(scorer, Request(mixed, out=str(tmp_path / "out"), overwrite=True))
    with pytest.raises(UserError, match="finished"):
        complete(scorer, Request(mixed, out=str(tmp_path / "out")))


def test_names_of_maps_are_their_files_alone(tmp_path, run):
    data = _volumes(tmp_path)
    folder = tmp_path / "new"
    folder.mkdir()
    image = nibabel.load(data.store_plan.cases[0].image)
    for name in ("a.nii", "a.nii.gz"):
        nibabel.save(image, folder / name)
    complete(scorer_of(run, data, Brightness()), Request(folder, out=str(tmp_path / "out"), anyway=True))
    maps = sorted(path.name for path in (tmp_path / "out" / "maps").iterdir())
    assert maps == ["a.nii.gz.map.nii.gz", "a.nii.map.nii.gz"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_the_map_of_a_picture_lies_on_its_stored_pixels(tmp_path, run, orientation, suffix):
    stored = np.zeros((40, 64), np.uint8)
    stored[4:12, 8:24] = 250
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "new").mkdir()
    Image.fromarray(stored).save(tmp_path / "new" / f"a.{suffix}", exif=exif)
    data = _pictures(tmp_path, picture={"size": (64, 64)}, cut={"label": "case"})
    complete(scorer_of(run, data, Brightness()), Request(tmp_path / "new", out=str(tmp_path / "out")))
    with Image.open(tmp_path / "out" / "maps" / f"a.{suffix}.map.png") as picture:
        assert picture.getexif().get(0x0112, 1) == orientation
        found = np.asarray(picture, float) / 65535 * 255
    assert found.shape == stored.shape
    assert np.abs(found - stored).mean() < 8


def test_a_broken_exif_block_costs_neither_the_map_nor_the_other_files(tmp_path, run):
    (tmp_path / "new").mkdir()
    for number, exif in enumerate((b"", b"Exif\0\0garbagegarbage", b"")):
        pixels = np.tile(np.arange(20, dtype=np.uint8) + number, (20, 1))
        Image.fromarray(pixels).save(tmp_path / "new" / f"{number}.png", **({"exif": exif} if exif else {}))
    predicted = complete(
        scorer_of(run, _pictures(tmp_path), Brightness()), Request(tmp_path / "new", out=str(tmp_path / "out"))
    )
    rows = _scores(tmp_path / "out")
    assert list(rows) == ["0.png", "1.png", "2.png"]
    assert all(row["score"] and not row["reason"] for row in rows.values())
    assert predicted.is_whole
    assert (tmp_path / "out" / "maps" / "1.png.map.png").is_file()


class Deviations(Brightness):
    """Has a map in standard deviations, of which bright pixels have many."""

    def score(self, batch: Batch) -> Prediction:
        score, bright, *_ = super().score(batch)
        assert bright is not None
        return Prediction(score, 9 * bright - 1)


@pytest.mark.parametrize(("detector", "scales"), [(Brightness(), {2}), (Deviations(), {2, 4, 8, 16})])
def test_a_map_of_large_values_is_not_cut_off(run, mixed, detector, scales):
    scorer, place = scorer_of(run, _pictures(mixed.parent), detector), mixed.parent / "out"
    request = Request(mixed / "inner", out=str(place))
    calls = iter(range(5))

    def read(case: Case) -> Scan:
        if next(calls, None) is None:
            raise Stop(143)
        return HeadCT.read_new(scorer.data, case)

    with patch.object(scorer.data, "read_new", read), pytest.raises(Stop):
        complete(scorer, request)
    complete(scorer, request)  # what white is in the maps of those before the sixth is known when it goes on
    told = json.loads((place / "prediction.json").read_text())["map_scales"]
    assert set(told.values()) == scales
    assert len(told) == 8  # 0.png cannot be read
    for name, scale in told.items():
        with Image.open(place / name) as picture:
            assert picture.text == {"scale": str(scale)}
            found = np.asarray(picture) / 65535 * scale
        anomaly_map = scorer.score(mixed / "inner" / Path(name).name.removesuffix(".map.png")).anomaly_map
        assert np.abs(found - anomaly_map.clip(0)).max() <= scale / 65535


@pytest.mark.parametrize("error", [ValueError("odd"), MemoryError(), OSError("cannot write mode")])
def test_what_fails_while_a_map_is_written_costs_that_map(tmp_path, run, mixed, monkeypatch, error):
    def write(path: Path, scored: ScoredScan, scale: int) -> None:
        if scored.case.id == "3.png":
            raise error
        path.touch()

    monkeypatch.setattr("anomaly_lab.pipeline.predict._write_picture", write)
    predicted = complete(
        scorer_of(run, _pictures(tmp_path), Brightness()), Request(mixed / "inner", out=str(tmp_path / "out"))
    )
    rows = _scores(tmp_path / "out")
    assert rows["3.png"]["score"]
    assert "its map cannot be written" in rows["3.png"]["reason"]
    assert not rows["4.png"]["reason"]
    assert not predicted.is_whole
    full = OSError(errno.ENOSPC, "full")
    monkeypatch.setattr("anomaly_lab.pipeline.predict._write_picture", Mock(side_effect=full))
    with pytest.raises(UserError, match="the disk is full"):  # it goes on later
        complete(
            scorer_of(run, _pictures(tmp_path), Brightness()), Request(mixed / "inner", out=str(tmp_path / "full"))
        )


def test_a_scan_of_another_nature_is_refused_or_scored_at_the_users_word(tmp_path, run, mixed):
    volumes, data = _volumes(tmp_path), _pictures(tmp_path)
    shutil.copy(volumes.store_plan.cases[0].image, mixed / "scan.nii.gz")
    scorer = scorer_of(run, data, Brightness())
    scorer.expected = ExpectedInput(describe(data), scaled=True)
    predicted = complete(scorer, Request(mixed, out=str(tmp_path / "out")))
    assert "it is a volume, the run was trained on pictures" in _scores(tmp_path / "out")["scan.nii.gz"]["reason"]
    assert not predicted.is_whole
    with pytest.raises(UserError, match="it is a volume"):
        scorer.score(mixed / "scan.nii.gz")
    alone = complete(scorer, Request(mixed / "scan.nii.gz", out=str(tmp_path / "anyway"), anyway=True))
    row = _scores(tmp_path / "anyway")["scan.nii.gz"]
    assert row["score"]
    assert row["reason"].startswith("unlike the training scans: it is a volume")
    assert alone.is_whole
    assert "Unlike the training scans" in (tmp_path / "anyway" / "index.html").read_text()
    scorer.expected = ExpectedInput({})
    complete(scorer, Request(mixed / "scan.nii.gz", out=str(tmp_path / "unchecked")))
    assert "Input not checked" in (tmp_path / "unchecked" / "index.html").read_text()


def test_a_mask_that_cannot_be_used_does_not_cost_the_score(tmp_path, run, mixed):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "1.png").write_bytes(b"no picture")
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "masks" / "2.png")
    scorer = scorer_of(run, _pictures(tmp_path), Brightness())
    predicted = complete(scorer, Request(mixed / "inner", tmp_path / "masks", str(tmp_path / "out")))
    rows = _scores(tmp_path / "out")
    assert all(rows[f"{number}.png"]["score"] for number in range(1, 9))
    assert all("its mask cannot be used" in rows[f"{number}.png"]["reason"] for number in (1, 2))
    assert not rows["3.png"]["reason"]
    assert not predicted.is_whole


def test_a_dicom_file_is_a_case_with_its_identifiers(tmp_path, run):
    for z in range(3):
        slice_ = dicom_slice(np.arange(400, dtype=np.int16).reshape(20, 20) + z, z=z, SeriesInstanceUID="1.2.3.4")
        save(slice_, tmp_path / "new" / "series" / f"{z}.dcm")
    view = dicom_slice(np.arange(400, dtype=np.uint16).reshape(20, 20), ImagePositionPatient=None, Modality="DX")
    view.SeriesInstanceUID = "1.2.3.5"
    save(view, tmp_path / "new" / "view.dcm")
    scorer = scorer_of(run, _pictures(tmp_path), Brightness())
    complete(scorer, Request(tmp_path / "new", out=str(tmp_path / "out")))
    rows = _scores(tmp_path / "out")
    assert set(rows) == {"series/0.dcm", "view.dcm"}
    assert (rows["series/0.dcm"]["series_uid"], rows["series/0.dcm"]["instance_uid"]) == ("1.2.3.4", "")
    assert (rows["view.dcm"]["series_uid"], rows["view.dcm"]["instance_uid"]) == ("1.2.3.5", view.SOPInstanceUID)
    assert rows["view.dcm"]["score"]
    (tmp_path / "bare").mkdir()
    shutil.copy(tmp_path / "new" / "view.dcm", tmp_path / "bare" / "IM0001")
    alone = complete(scorer, Request(tmp_path / "bare" / "IM0001", out=str(tmp_path / "alone")))
    assert [finding.is_scored for finding in alone.findings] == [True]
    assert (tmp_path / "alone" / "maps" / "IM0001.map.png").is_file()


def test_texts_of_files_are_no_formulas_in_the_tables(tmp_path, run, monkeypatch):
    view = dicom_slice(np.arange(400, dtype=np.uint16).reshape(20, 20), ImagePositionPatient=None, Modality="DX")
    formula = '=HYPERLINK("http://x/","y")'
    with pydicom.config.disable_value_validation():
        view.SeriesInstanceUID = formula
        save(view, tmp_path / "new" / "view.dcm")
    (tmp_path / "new" / "\uff1dtorn.png").touch()  # a full-width sign
    (tmp_path / "new" / "\uff20notes.txt").touch()
    scorer = scorer_of(run, _pictures(tmp_path), Brightness())
    complete(scorer, Request(tmp_path / "new", out=str(tmp_path / "out")))
    rows = _scores(tmp_path / "out")
    assert rows["view.dcm"]["series_uid"] == f"'{formula}"
    assert rows["view.dcm"]["score"]
    for table in ("scores.csv", "left_out.csv"):
        with (tmp_path / "out" / table).open(newline="") as file:
            assert not [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "\uff1d", "\uff20"))]


def test_a_reason_that_begins_like_a_formula_goes_on_as_it_was(tmp_path):
    (tmp_path / "scores.csv").write_text("id,score,p_value,pred_label,reason\n'=a,,,,'=1+1\n")
    (finding,) = _findings(tmp_path / "scores.csv", ["=a"], ())
    assert (finding.id, finding.reason) == ("=a", "=1+1")


def test_a_run_with_classes_says_how_probable_they_are(tmp_path: Path, run: Path) -> None:
    data = _pictures(tmp_path)
    (tmp_path / "new").mkdir()
    for name, grey in (("dark", 20), ("light", 230)):
        Image.linear_gradient("L").resize((8, 8)).point(lambda value, grey=grey: (value + grey) // 2).save(
            tmp_path / "new" / f"{name}.png"
        )
    out = predict(run, data, Kinds(), tmp_path / "new", tmp_path / "out")
    rows = _scores(out)
    assert list(rows["dark.png"]) == [*COLUMNS, "probability:normal", "probability:anomalous"]
    for row in rows.values():
        assert float(row["probability:anomalous"]) == pytest.approx(float(row["score"]))
        assert float(row["probability:normal"]) == pytest.approx(1 - float(row["score"]))
    page = (out / "index.html").read_text()
    assert "<th>normal</th><th>anomalous</th>" in page
    most = f"{float(rows['light.png']['probability:anomalous']):.3f}".lstrip("0")
    assert f"<td><b>{most}</b></td>" in page
    scored = scorer_of(run, data, Kinds()).score(tmp_path / "new" / "light.png")
    assert scored.probabilities.tolist() == [float(rows["light.png"][f"probability:{n}"]) for n in data.classes]


def test_a_prediction_with_classes_goes_on_where_it_stopped(tmp_path: Path, run: Path) -> None:
    (tmp_path / "new").mkdir()
    for number in range(3):
        Image.linear_gradient("L").resize((8, 8 + number)).save(tmp_path / "new" / f"{number}.png")
    predict(run, _pictures(tmp_path), Kinds(), tmp_path / "new", tmp_path / "out")
    ids = [f"{number}.png" for number in range(3)]
    findings = _findings(tmp_path / "out" / "scores.csv", ids, ("normal", "anomalous"))
    assert [sum(finding.probabilities) for finding in findings] == pytest.approx([1.0] * 3)


def test_a_class_probability_that_is_none_leaves_the_file_without_a_score(tmp_path: Path, run: Path) -> None:
    class Broken(Kinds):
        def score(self, batch: Batch) -> Prediction:
            said = super().score(batch)
            return said._replace(probabilities=said.probabilities * torch.nan)

    Image.linear_gradient("L").save(tmp_path / "a.png")
    with pytest.raises(UserError, match="a class probability is none"):
        scorer_of(run, _pictures(tmp_path), Broken()).score(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("made", "setting"),
    [
        (ABMNIST, "data.pad=2"),
        (partial(ABMNIST, pad=0), ""),
        (OCT2017, "data.crop_white=true"),
        (partial(OCT2017, crop_white=False), ""),
        (partial(MIAS, crop="breast"), "data.crop=breast"),
        (MIAS, ""),
    ],
)
def test_arrays_warn_once_of_what_is_done_to_files_alone(tmp_path, run, made, setting):
    picture = np.full((64, 64), 255, np.uint8)  # has a white margin
    picture[8:56, 4:40] = np.random.default_rng(0).integers(60, 160, (48, 36))
    Image.fromarray(picture).save(tmp_path / "mdb001.png")
    other = scorer_of(run, _pictures(tmp_path), Brightness())
    data = made(root=str(tmp_path / "none"), source="twin", patch_size=(32, 32))
    scorer = Scorer(data, other.detector, {"rule": "none", "top_k": 10}, other.reference, bits=8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        of_file, *of_arrays = (scorer.score(each).score for each in (tmp_path / "mdb001.png", picture, picture))
    assert [of_file == score for score in of_arrays] == [not setting] * 2
    said = [str(each.message) for each in caught if "arrays are scored without" in str(each.message)]
    assert len(said) == bool(setting)
    assert all(setting in each for each in said)


@pytest.mark.parametrize(
    ("values", "scale"), [([0.0, 1.5], 2), ([2.0], 2), ([2.5], 4), ([17.0, -40.0], 32), ([3.0, math.inf, math.nan], 4)]
)
def test_white_is_the_power_of_two_that_holds_a_map(values: list[float], scale: int) -> None:
    assert _scale(np.array(values, np.float32)) == scale
