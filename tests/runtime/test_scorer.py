"""An export scores arrays as its run does, without torch; what is wrong with either is said in a line."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from exported_run import trained
from omegaconf import OmegaConf
from PIL import Image

import anomaly_lab as al
from anomaly_lab.experiment import config
from anomaly_lab.pipeline import engine
from anomaly_lab.pipeline.export import export_run
from anomaly_lab.pipeline.scorer import Scorer
from anomaly_lab.reports import prediction_page
from anomaly_lab.reports.record import read_run
from anomaly_lab.runtime.scorer import ExportScorer, _Preprocessing
from anomaly_lab.types import UserError

RNG = np.random.default_rng(5)
PICTURES = {
    "grey": RNG.integers(0, 256, (45, 31), np.uint8),
    "sixteen bits": RNG.integers(0, 65536, (20, 64), np.uint16),
    "colour": RNG.integers(0, 256, (33, 70, 3), np.uint8),
    "floats": RNG.random((32, 32)),
    "deep colour": RNG.integers(0, 65536, (50, 40, 3), np.uint16),
}
VOLUME = np.arange(64.0).reshape(4, 4, 4)
WITHOUT_TORCH = """
import sys

MISSING = {missing!r}

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import numpy as np
import anomaly_lab
scorer = anomaly_lab.load(sys.argv[1])
scored = scorer.score(np.load(sys.argv[2]), anyway=True)
print(repr(scored.score), scored.p_value, scored.is_anomalous, float(scored.anomaly_map.sum()))
assert not MISSING & {{name.split(".")[0] for name in sys.modules}}
try:
    scorer.score(np.arange(64000.0).reshape(40, 40, 40), affine=np.eye(4), anyway=True)
except anomaly_lab.types.UserError as error:
    print(error)
"""


@pytest.mark.parametrize("array", PICTURES.values(), ids=PICTURES)
def test_arrays_score_as_in_the_run(run: Path, export: Path, array: np.ndarray) -> None:
    of_run, of_export = Scorer.open(run), ExportScorer.open(export)
    own, got = of_run.score(array, anyway=True), of_export.score(array, anyway=True)
    assert got.score == pytest.approx(own.score, rel=1e-5)
    assert (got.p_value, got.is_anomalous) == (own.p_value, own.is_anomalous)
    assert got.anomaly_map is not None
    assert got.anomaly_map.shape == array.shape[:2]
    np.testing.assert_allclose(got.anomaly_map, own.anomaly_map, atol=1e-5)
    assert of_export.prepare(array).shape == (1, 1, 32, 32)


def test_what_export_json_says_is_at_hand(run: Path, export: Path) -> None:
    scorer, of_run = ExportScorer.open(export), Scorer.open(run)
    assert scorer.threshold == of_run.threshold
    assert scorer.normals.tolist() == sorted(of_run.normals.tolist())
    of_run_too = prediction_page.caveats(read_run(run), of_run.reference, of_run.expected.is_known)
    assert list(scorer.caveats) == of_run_too  # all that the report, the page and the server say
    assert any(caveat.startswith("Reduced budget: smoke") for caveat in scorer.caveats)
    assert scorer.description["run"]["experiment"] == "pca_headct"
    assert str(run) not in json.dumps(scorer.description), "it says where the run lies"
    assert max(scorer.description["equality"]["largest_difference"].values()) < 1e-5


def test_a_scan_of_another_nature_is_refused(export: Path) -> None:
    scorer = ExportScorer.open(export)
    dark = np.full((32, 32), 3, np.uint16)
    with pytest.raises(UserError, match="not scored, since its score would mean nothing: its intensities"):
        scorer.score(dark)
    assert "unlike the training scans" in scorer.score(dark, anyway=True).remarks[0]
    with pytest.raises(UserError, match="it is a volume, the run was trained on pictures"):
        scorer.score(VOLUME, affine=np.eye(4))


@pytest.mark.parametrize(
    ("array", "affine", "reason"),
    [
        (np.zeros(3, np.uint8), None, "is not a picture"),
        (np.zeros((4, 4), np.int32), None, "not supported"),
        (np.full((4, 4), np.nan), None, "NaN"),
        (np.zeros((4, 4)), np.eye(4), "is no volume"),
        (np.full((4, 4, 4), np.nan), np.eye(4), "NaN or infinite voxels"),
        (np.zeros((8, 8, 8)), np.eye(4), "every voxel is 0, the volume is constant"),
        (np.full((4, 4, 4), 7, np.int16), np.eye(4), "every voxel is 7, the volume is constant"),
        (VOLUME, np.zeros((4, 4)), "invertible"),
        (VOLUME, np.eye(3), "invertible"),
        (np.zeros((0, 4)), None, "is not a picture"),
    ],
)
def test_what_is_no_scan_is_refused(export: Path, array: np.ndarray, affine: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        ExportScorer.open(export).score(array, affine, anyway=True)


@pytest.mark.slow
def test_neither_torch_nor_anything_else_is_needed(run: Path, export: Path, tmp_path: Path) -> None:
    missing = {"torch", "monai", "omegaconf", "pytorch_lightning", "torchvision", "albumentations", "cv2", "sklearn",
               "scipy", "nibabel", "pydicom", "typer", "rich", "jinja2", "wandb", "psutil", "filelock", "submitit",
               "onnx", "onnxscript", "torchmetrics"}  # fmt: skip
    np.save(tmp_path / "a.npy", PICTURES["colour"])
    program = WITHOUT_TORCH.format(missing=missing)
    command = [sys.executable, "-c", program, str(export), str(tmp_path / "a.npy")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.splitlines()
    score, p_value, called, total = first.split()
    own = Scorer.open(run).score(PICTURES["colour"], anyway=True)
    assert own.anomaly_map is not None
    assert float(score) == pytest.approx(own.score, rel=1e-5)
    assert (float(p_value), called) == (own.p_value, str(own.is_anomalous))
    assert float(total) == pytest.approx(float(own.anomaly_map.sum()), rel=1e-4)
    assert second == "it cannot be scored here: volumes need nibabel: pip install nibabel"


def changed(export: Path, folder: Path, **changes: Any) -> Path:
    """A copy of the export whose export.json says something else at dotted keys."""
    copy = Path(shutil.copytree(export, folder / "copy"))
    content = json.loads((copy / "export.json").read_text())
    for key, value in changes.items():
        *above, last = key.split("__")
        section = content
        for name in above:
            section = section[name]
        section[last] = value
    (copy / "export.json").write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patches__size": [16, 16]}, "takes or returns something else"),
        ({"patches__channels": 3}, "takes or returns something else"),
        ({"model__outputs": ["score", "probabilities"]}, "takes or returns something else"),
        ({"model__batch": 7}, "takes or returns something else"),
        ({"volume__axcodes": "XYZ"}, "says what cannot be"),
        ({"volume__percentiles": [1.0, 2.0], "volume__zscore": 3.0}, "says what cannot be"),
        ({"model__format": "pt2"}, "a pt2 file is for programs with torch"),
        ({"model__sha256": "0" * 64}, "SHA-256 differs"),
        ({"model__bytes": 5}, "SHA-256 differs"),
    ],
)
def test_a_description_of_another_model_is_refused(export: Path, tmp_path: Path, changes: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        ExportScorer.open(changed(export, tmp_path, **changes))


def test_windows_are_stitched_as_in_a_run(export: Path, tmp_path: Path) -> None:
    windows = {"overlap": 0.5, "plane": "axial", "foreground": 0.0, "counted": 0.0}
    scorer = ExportScorer.open(changed(export, tmp_path, windows=windows, picture__size=None, stitching__rule="mean"))
    array = PICTURES["deep colour"]
    patches = scorer.prepare(array)
    assert patches.shape == (6, 1, 32, 32)  # at rows 0, 16, 18 and columns 0, 8
    scored = scorer.score(array, anyway=True)
    assert scored.score == pytest.approx(float(scorer.outputs(patches)["score"].mean()), rel=1e-6)
    assert scored.anomaly_map is not None
    assert scored.anomaly_map.shape == (50, 40)


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose patches are windows of pictures, and which was evaluated window by window."""
    return trained(tmp_path_factory.mktemp("windows"), "data.patch_size=[16,16]", "data.cut.overlap=0.5",
                   "data.picture.size=[32,32]")  # fmt: skip


def test_windows_are_judged_by_whole_scans_in_run_and_export(windows: Path) -> None:
    with (windows / "scores.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    of_window, of_scan = [float(row["score"]) for row in rows], dict[str, float]()
    for row in rows:
        name = row["id"].partition("@")[0]
        of_scan[name] = max(of_scan.get(name, 0.0), float(row["score"]))
    assert (len(of_window), len(of_scan)) == (18, 2)
    of_run, of_export = Scorer.open(windows), al.load(export_run(windows).folder)
    assert of_run.normals.tolist() == pytest.approx([*of_scan.values()])
    for name, highest in of_scan.items():  # the very scans that are the reference
        array = np.asarray(Image.open(windows.parents[2] / "headct" / "head_ct" / "head_ct" / f"{name}.png"))
        own, got = of_run.score(array), of_export.score(array)
        assert own.score == pytest.approx(highest, rel=1e-5)
        assert (own.is_anomalous, got.is_anomalous) == (False, False)
        assert {own.p_value, got.p_value} <= {1 / 3, 2 / 3, 1.0}  # of two scans; at a tie rounding decides
        np.testing.assert_allclose(got.anomaly_map, own.anomaly_map, atol=1e-5)
    assert of_run.threshold == of_export.threshold
    assert str(of_run.reference) == of_export.reference == "2 validation scans"
    by_case = Path(shutil.copytree(windows, windows.with_name("by case")))
    al.evaluate(by_case, evaluation={"case_score": "max"})
    assert Scorer.open(by_case).threshold == pytest.approx(of_run.threshold)


def test_volumes_are_judged_by_whole_scans_where_data_cut_says_nothing(tmp_path: Path) -> None:
    """They are cut all the same, by the default grid."""
    words = ["budget=smoke", "data.source=twin", "data.twin.size=60", "data.cut=null", "data.patch_size=[32,32]",
             "callbacks.wandb=null", "callbacks.health=null", "evaluation.replicates=20", f"runs={tmp_path / 'runs'}",
             f"data.store.folder={tmp_path / 'store'}"]  # fmt: skip
    run = engine.train(config.load("pca_nifti", words))
    with (run / "scores.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    of_scan = dict[str, float]()
    for row in rows:
        name = row["id"].partition("@")[0]
        of_scan[name] = max(of_scan.get(name, 0.0), float(row["score"]))
    [name] = of_scan
    assert len(rows) > 100
    of_run, of_export = Scorer.open(run), al.load(export_run(run).folder)
    assert of_run.normals.tolist() == pytest.approx([*of_scan.values()])
    assert str(of_run.reference) == of_export.reference == "1 validation scan (no label)"
    [file] = (tmp_path / "store").glob(f"twins/*/{name}.nii.gz")
    volume = nibabel.load(file)
    own, got = of_run.score(file), of_export.score(np.asarray(volume.dataobj), volume.affine)
    assert own.score == pytest.approx(of_scan[name], rel=1e-5)
    assert (own.p_value, own.is_anomalous, got.is_anomalous) == (1.0, None, None)


def test_an_export_counts_the_slices_that_its_run_counted(export: Path, tmp_path: Path) -> None:
    windows = {"overlap": 0.0, "plane": "axial", "foreground": 0.0, "counted": 0.0, "slices": [1, 1]}
    scorer = ExportScorer.open(changed(export, tmp_path, windows=windows, stitching__rule="max"))
    volume, affine = RNG.normal(50, 20, (32, 32, 3)), np.diag([-1.0, -1.0, 2.0, 1.0])
    scores = scorer.outputs(scorer.prepare(volume, affine))["score"]
    assert scorer.score(volume, affine=affine, anyway=True).score == pytest.approx(float(scores[1]), rel=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("limits.val", 18, "data.limits.val=18"), ("limits.val", 0.9, "data.limits.val=0.9"), ("limits.val", 19, ""),
     ("cut.per_scan", 9, "data.cut.per_scan=9")],
)  # fmt: skip
def test_a_part_of_the_validation_windows_gives_no_p_value(
    windows: Path, tmp_path: Path, key: str, value: float, said: str
) -> None:
    run = Path(shutil.copytree(windows, tmp_path / "run"))
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(config, f"data.{key}", value)
    OmegaConf.save(config, run / "config.yaml")
    scorer = Scorer.open(run)
    scored = scorer.score(PICTURES["grey"], anyway=True)
    assert (scored.p_value is None, scored.is_anomalous is None) == (bool(said), bool(said))
    assert said in scorer.reference.lacking
    assert bool(scorer.reference.lacking) == bool(said)


def test_an_export_of_windows_without_its_reference_is_told_so(export: Path, tmp_path: Path) -> None:
    windows = {"overlap": 0.5, "plane": "axial", "foreground": 0.0, "counted": 0.0}
    old = changed(export, tmp_path, windows=windows, stitching__rule="none")
    content = json.loads((old / "export.json").read_text())
    del content["reference"]
    volumes = content | {"windows": None, "expected": content["expected"] | {"kinds": {"volume": 3}}}  # cut by default
    for windowed in (content, volumes):
        (old / "export.json").write_text(json.dumps(windowed))
        with pytest.raises(UserError, match=r"older version and has the scores of windows only.*export the run again"):
            al.load(old)
    (old / "export.json").write_text(json.dumps(content | {"windows": None}))  # whole pictures, as ever
    assert al.load(old).score(PICTURES["grey"], anyway=True).p_value is not None


def test_an_export_without_validation_normals_has_no_p_values(export: Path, tmp_path: Path) -> None:
    scored = ExportScorer.open(changed(export, tmp_path, normals=[])).score(PICTURES["grey"], anyway=True)
    assert scored.p_value is None
    assert scored.is_anomalous is not None  # reproduction switches take a threshold from elsewhere


def test_a_model_that_takes_one_patch_at_a_time_is_given_one(export: Path) -> None:
    scorer = ExportScorer.open(export)
    patches = RNG.uniform(-1, 1, (5, 1, 32, 32)).astype(np.float32)
    together = scorer.outputs(patches)
    scorer.description["model"]["batch"] = 2  # the last block is filled up
    apart = scorer.outputs(patches)
    assert {name: values.shape for name, values in apart.items()} == {"score": (5,), "map": (5, 1, 32, 32)}
    for name, values in together.items():
        np.testing.assert_allclose(apart[name], values, rtol=1e-5, atol=1e-6)


def test_a_picture_with_too_many_pixels_is_refused(export: Path, tmp_path: Path) -> None:
    scorer = ExportScorer.open(changed(export, tmp_path, picture__max_pixels=100))
    with pytest.raises(UserError, match="it has 45×31 pixels, the limit is 100"):
        scorer.score(PICTURES["grey"])


def test_volumes_are_prepared_and_their_maps_carried_back(export: Path, tmp_path: Path) -> None:
    volume = RNG.normal(50, 20, (32, 32, 3))
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    windows = {"overlap": 0.0, "plane": "axial", "foreground": 0.0, "counted": 0.0}
    scorer = ExportScorer.open(changed(export, tmp_path, windows=windows, stitching__rule="max"))
    scored = scorer.score(volume, affine=affine, anyway=True)
    assert scorer.prepare(volume, affine).shape == (3, 1, 32, 32)
    assert scored.anomaly_map is not None
    assert scored.anomaly_map.shape == volume.shape
    upside_down = scorer.score(volume[:, :, ::-1], affine=affine @ np.diag([1, 1, -1.0, 1]), anyway=True)
    assert upside_down.score == pytest.approx(scored.score, rel=1e-6)  # the same head, stored the other way round
    np.testing.assert_allclose(upside_down.anomaly_map[:, :, ::-1], scored.anomaly_map, atol=1e-6)  # type: ignore[index]


def test_masks_have_no_place_in_an_export() -> None:
    with pytest.raises(AssertionError, match="only masks"):
        _Preprocessing((4, 4))._resized(np.zeros((1, 8, 8), np.float32), (4, 4), "nearest-exact", antialias=False)


def test_load_tells_exports_from_runs(run: Path, export: Path) -> None:
    assert isinstance(al.load(export), ExportScorer)
    assert isinstance(al.load(export / "model.onnx"), ExportScorer)
    assert isinstance(al.load(str(export / "export.json")), ExportScorer)
    assert isinstance(al.load(run), Scorer)
    with pytest.raises(UserError, match="is no export"):
        ExportScorer.open(run)
