"""An export leaves only if it says what the run says, and takes the place of nothing but a former one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_run import trained

import anomaly_lab as al
from anomaly_lab import api
from anomaly_lab.__main__ import app
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.pipeline import engine, graph
from anomaly_lab.pipeline import export as exporting
from anomaly_lab.pipeline.export import export_run
from anomaly_lab.pipeline.scorer import Scorer
from anomaly_lab.types import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("export"))


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be spoilt."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_the_record_goes_along(own: Path) -> None:
    exported = export_run(own, "pt2")  # onnx is in tests/runtime
    assert exported.folder == own / "exports" / "pt2"
    assert sorted(path.name for path in exported.folder.iterdir()) == ["export.json", "model.pt2"]
    said = json.loads((exported.folder / "export.json").read_text())
    provenance = json.loads((own / "provenance.json").read_text())
    assert said["run"]["code"] == provenance["code"]
    assert said["run"]["git"] == provenance["git"]
    assert said["run"]["data"] == provenance["data"]["fingerprint"]
    assert said["run"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert said["equality"]["largest_difference"] == exported.differences
    assert said["equality"]["images"] == {"stored": 5, "noise": 8, "pictures": 0}
    assert max(exported.differences.values()) < 1e-6
    assert "no diagnosis" in said["meaning"]
    assert not list((own / "exports").glob(".*"))
    with pytest.raises(UserError, match="a pt2 file is for programs with torch"):
        al.load(exported.folder)
    assert export_run(own, "pt2").folder == exported.folder  # a former export is replaced


def test_what_is_done_to_files_alone_is_a_caveat_of_the_export(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caveats = json.loads((export_run(own, "pt2").folder / "export.json").read_text())["caveats"]
    assert not any("arrays are scored without" in caveat for caveat in caveats)
    monkeypatch.setattr(PatchDataModule, "of_files_alone", "data.pad=2")
    caveats = json.loads((export_run(own, "pt2").folder / "export.json").read_text())["caveats"]
    assert any("arrays are scored without data.pad=2" in caveat for caveat in caveats)


@pytest.mark.parametrize(("output", "shift"), [("score", 2e-4), ("map", float("nan"))])
def test_an_export_that_disagrees_does_not_leave(
    own: Path, monkeypatch: pytest.MonkeyPatch, output: str, shift: float
) -> None:
    honest = exporting._of_pt2

    def wrong(model: Path, made: graph.Graph) -> Any:
        run_export = honest(model, made)

        def shifted(images: np.ndarray) -> dict[str, np.ndarray]:
            said = run_export(images)
            said[output] = said[output] + np.float32(shift) * np.abs(said[output]).max()
            return said

        return shifted

    monkeypatch.setattr(exporting, "_of_pt2", wrong)
    with pytest.raises(UserError, match=f"does not agree with the run: its {output} differs by"):
        export_run(own, "pt2")
    assert not any((own / "exports").iterdir())


def test_weights_that_differ_are_noticed(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file itself is read back: what was written wrongly does not pass."""
    honest = graph.save

    def spoilt(made: graph.Graph, path: Path, format: graph.Format) -> None:
        with torch.no_grad():
            max(made.program.state_dict.values(), key=torch.numel).mul_(1.01)
        honest(made, path, format)

    monkeypatch.setattr(graph, "save", spoilt)
    kept = {key: value.clone() for key, value in Scorer.open(own).detector.state_dict().items()}
    monkeypatch.setattr(exporting, "_of_run", lambda scorer, images, outputs: reference(kept, scorer, images, outputs))
    with pytest.raises(UserError, match="does not agree with the run"):
        export_run(own, "pt2")


def reference(kept: Any, scorer: Scorer, images: np.ndarray, outputs: Any) -> dict[str, np.ndarray]:
    """What the detector with its own weights says: graph and detector share them."""
    scorer.detector.load_state_dict(kept)
    said = scorer.detector.score({"image": torch.from_numpy(images)})
    return {name: getattr(said, graph.OUTPUTS[name]).numpy() for name in outputs}


@pytest.mark.parametrize("place", [".", ".."])
def test_the_folder_one_is_in_is_not_replaced(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(UserError, match="this is the folder you are in, or above it; name a new folder"):
        export_run(own, "pt2", place)
    with pytest.raises(UserError, match="this is the folder you are in, or above it; name a new folder"):
        engine.train_by_name("pca_headct", ["budget=smoke", "data.source=twin"], into=place)
    assert not list((tmp_path / "a" / "b").iterdir())


def test_nothing_else_is_replaced(own: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("dear")
    with pytest.raises(UserError, match="holds something else"):
        export_run(own, "pt2", str(taken))
    export_run(own, "pt2", str(tmp_path / "out"))
    (own / "provenance.json").write_text((own / "provenance.json").read_text().replace('"id": "', '"id": "f'))
    with pytest.raises(UserError, match="holds something else than an export of this run"):
        export_run(own, "pt2", str(tmp_path / "out"))
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for other in ("file", "link"):
        with pytest.raises(UserError, match="is no folder"):
            export_run(own, "pt2", str(tmp_path / other))
    assert (taken / "mine.txt").read_text() == "dear"


def test_mistakes_are_said_in_one_line(own: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="FORMAT=tflite: there are onnx and pt2"):
        export_run(own, "tflite")
    with pytest.raises(UserError, match="not a run folder"):
        export_run(tmp_path)
    (own / "metrics.json").unlink()
    with pytest.raises(UserError, match="never evaluated"):
        export_run(own)


def test_the_command_line_and_the_api_are_the_same(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(exporting, "export_run", lambda *words: asked.append(words))
    app(["export", str(own), "--format", "pt2", "--out", "x"], standalone_mode=False)
    monkeypatch.setattr(api, "export_run", lambda *words: asked.append(words))
    al.export(own, format="pt2", out="x")
    assert asked == [(str(own), "pt2", "x"), (own, "pt2", "x")]


@pytest.mark.slow
def test_classes_and_windows_leave_as_well(tmp_path: Path) -> None:
    run = trained(tmp_path, "data.cut.overlap=0.5", "data.patch_size=[16,16]", "data.picture.size=[32,32]",
                  "score.from=map", "score.smooth=1")  # fmt: skip
    exported = export_run(run, "onnx")
    array = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)
    own, got = Scorer.open(run).score(array, anyway=True), al.load(exported.folder).score(array, anyway=True)
    assert got.score == pytest.approx(own.score, rel=1e-5)
    np.testing.assert_allclose(got.anomaly_map, own.anomaly_map, atol=1e-4)
