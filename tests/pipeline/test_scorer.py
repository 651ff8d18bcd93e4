"""A trained run scores new scans without its training data, as the run itself scored them."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from data.conftest import write_headct
from dicom_files import dicom_slice, save
from PIL import Image
from pipeline.conftest import settings
from pydicom.uid import SecondaryCaptureImageStorage

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment import run_folder
from anomaly_lab.pipeline import engine
from anomaly_lab.pipeline import scorer as scorer_module
from anomaly_lab.pipeline.scorer import Scorer
from anomaly_lab.types import UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose data and store are gone, with the pictures kept aside."""
    folder = tmp_path_factory.mktemp("scorer")
    write_headct(folder / "headct")
    words = ("detector.gan_iterations=2", "detector.encoder_iterations=2", "callbacks.wandb=null",
             "evaluation.replicates=20", "callbacks.health=null", "detector.latent_dim=4")  # fmt: skip
    run = engine.train(settings(folder, *words))
    shutil.move(folder / "headct" / "head_ct" / "head_ct", folder / "pictures")
    shutil.rmtree(folder / "headct")
    shutil.rmtree(folder / "store")
    return run


def recorded(run: Path) -> dict[str, float]:
    return {row["id"]: float(row["score"]) for row in csv.DictReader((run / "scores.csv").open())}


def test_a_picture_has_the_score_the_run_gave_it(trained: Path) -> None:
    scorer = Scorer.open(trained)
    for name, score in recorded(trained).items():
        path = trained.parents[2] / "pictures" / f"{name}.png"
        scored = scorer.score(path)
        assert scored.score == pytest.approx(score, rel=1e-5)
        assert scorer.score(np.asarray(Image.open(path))).score == pytest.approx(score, rel=1e-5)
        assert scored.anomaly_map is not None
        assert scored.anomaly_map.shape == Image.open(path).size[::-1]
        assert scored.p_value is not None
        assert 0 < scored.p_value <= 1
        assert scorer.threshold is not None
        assert scored.is_anomalous == (scored.score > scorer.threshold)
    assert not (trained.parents[2] / "store").exists()


def test_many_scans_come_in_their_order(trained: Path) -> None:
    scorer = Scorer.open(trained)
    arrays = [np.random.default_rng(i).integers(0, 255, (20, 30), np.uint8) for i in range(5)]
    together = [scored.score for scored in scorer.score_all(arrays)]
    assert together == pytest.approx([scorer.score(array).score for array in arrays], rel=1e-5)


def test_what_is_not_one_scan_is_refused(trained: Path, tmp_path: Path) -> None:
    scorer = Scorer.open(trained)
    with pytest.raises(UserError, match="13 scans, but one is expected"):
        scorer.score(trained.parents[2] / "pictures")
    with pytest.raises(UserError, match="no picture"):
        scorer.score(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match="is not a picture"):
        scorer.score(np.zeros(3, np.uint8))


def test_a_folder_of_what_the_run_takes_for_scans_is_one(trained: Path, tmp_path: Path) -> None:
    """As `predict` finds it, too."""
    dataset = dicom_slice(np.arange(1600).reshape(40, 40), SOPClassUID=SecondaryCaptureImageStorage)
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    save(dataset, tmp_path / "new" / "a.dcm")
    scorer = Scorer.open(trained)
    with pytest.raises(UserError, match="no picture"):
        scorer.score(tmp_path / "new")
    scorer.data.include = ("Secondary Capture Image Storage",)
    assert scorer.score(tmp_path / "new", anyway=True).case.id == "a.dcm"


def test_a_run_that_cannot_score_is_refused(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "metrics.json").unlink()
    with pytest.raises(UserError, match="never evaluated"):
        Scorer.open(run)
    shutil.copyfile(trained / "metrics.json", run / "metrics.json")
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no checkpoint"):
        Scorer.open(run)
    with pytest.raises(UserError, match="not a run folder"):
        Scorer.open(tmp_path)


def test_a_run_that_is_evaluated_while_it_is_opened_is_refused(trained: Path, tmp_path: Path, monkeypatch) -> None:
    """Its threshold would be of one evaluation and its normals of another."""
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    load = scorer_module.load_weights

    def meanwhile(run: Path, detector: Detector) -> Path:
        run_folder.update_provenance(run, evaluated=[{"at": "now"}])
        return load(run, detector)

    monkeypatch.setattr(scorer_module, "load_weights", meanwhile)
    with pytest.raises(UserError, match="was evaluated again while it was opened"):
        Scorer.open(run)
    monkeypatch.setattr(scorer_module, "load_weights", load)
    assert Scorer.open(run).threshold == Scorer.open(trained).threshold


def test_a_file_of_another_nature_is_refused_and_a_run_says_what_it_expects(trained: Path, tmp_path: Path) -> None:
    scorer = Scorer.open(trained)
    assert scorer.expected.facts["kinds"] == {"picture": 8 - 2}
    assert scorer.expected.facts["bits"] == 8
    faint = tmp_path / "faint.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 4096, (20, 20), np.uint16)).save(faint)
    with pytest.raises(UserError, match=r"faint.png: not scored.*run from .* of white"):
        scorer.score(faint)
    assert scorer.score(faint, anyway=True).remarks[0].startswith("unlike the training scans")


def test_a_score_that_is_no_number_is_an_error(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer.open(trained)
    parts = scorer._predict
    monkeypatch.setattr(
        scorer, "_predict", lambda patches: parts(patches)._replace(score=parts(patches).score * np.nan)
    )
    with pytest.raises(UserError, match="the score is not finite"):
        scorer.score(trained.parents[2] / "pictures" / "000.png")


def test_settings_of_a_run_that_scores(trained: Path) -> None:
    assert Scorer.open(trained, ["data.store.scoring_batch_size=3"]).data.scoring_batch_size == 3
    with pytest.raises(UserError, match="seed cannot be changed"):
        Scorer.open(trained, ["seed=3"])
