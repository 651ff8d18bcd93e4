"""Score new files with a trained run and write a table of scores, anomaly maps and an HTML page."""

import csv
import io
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress

from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.readers.dicom_parametric_map import write_parametric_map
from anomaly_lab.data.readers.files import find_cases
from anomaly_lab.data.store.disk import disk_errors, fresh_folder
from anomaly_lab.evaluation.maps import filled
from anomaly_lab.evaluation.stitching import save_map
from anomaly_lab.metrics import ranking
from anomaly_lab.pipeline.console import console, say
from anomaly_lab.pipeline.scorer import ScoredScan, Scorer
from anomaly_lab.reports import prediction_page
from anomaly_lab.reports.prediction_page import NO_NORMALS, Finding
from anomaly_lab.types import Case, UserError


def new_cases(source: Path, masks: Path | None = None) -> list[Case]:
    """Find the pictures and scans to score.

    Args:
        source: a file, or a folder that is searched recursively; the id of a case is its path below the folder.
        masks: known lesions, for display only: one file if `source` is a file, or a folder of files that are named like
            the images.

    Raises:
        UserError: there is nothing to score, or no mask matches.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (8, 8)).save(f"{folder}/slice.png")
        ...     [case.id for case in new_cases(Path(folder))]
        ['slice.png']
    """
    cases = find_cases(source) if source.exists() else []
    if not cases:
        raise UserError(f"{source}: no pictures, NIfTI volumes or DICOM files found; give INPUT=<folder>")
    if masks is None:
        return cases
    paths = {case.id: masks / case.id if masks.is_dir() else masks for case in cases}
    if not any(path.is_file() for path in paths.values()):
        raise UserError(f"{masks}: no mask is named like a picture or scan, such as {cases[0].id}; check MASKS=…")
    return [replace(case, mask=paths[case.id] if paths[case.id].is_file() else None) for case in cases]


def predict_files(name: str, scorer: Scorer, cases: list[Case], out: Path) -> Path:
    """Score cases and write scores.csv (id, score, p_value, pred_label), a map of every case and index.html.

    Maps are written as `maps/<id>.png` for pictures and as `maps/<id>.nii.gz` for volumes, on the grid of the scan with
    its affine. A DICOM series also gets `maps/<id>.map.dcm`, a Parametric Map, if highdicom is installed.

    If the detector has no map and a scan has several windows, the map shows the scores of the windows, averaged where
    they overlap and scaled linearly: 0 is the lowest score of the run's validation normals, 1 is the run's threshold.
    For a run without validation normals, the scale is from the lowest to the highest score of the scan.

    Args:
        name: name of the run, for the title of the page.
        scorer: the scorer of the run.
        cases: the cases, see `new_cases`.
        out: the output folder; written completely or not at all, an existing one is replaced.

    Returns:
        `out`.

    Raises:
        UserError: a file cannot be read.

    Examples:
        >>> predict_files(run.name, Scorer.open(run), new_cases(Path("scans")), Path("out"))  # doctest: +SKIP
        PosixPath('out')
    """
    findings: list[Finding] = []
    with (
        disk_errors(out.parent, "writing the scores", "choose another folder with --out"),
        fresh_folder(out) as work,
        Progress(console=console) as progress,
    ):
        for scored in progress.track(scorer.score_all(cases), total=len(cases), description="scoring"):
            finding = Finding(scored.case.id, scored.score, scored.p_value, scored.is_anomalous)
            if scored.map_seen is not None:
                _write_map(work / "maps", scored)
                finding = _with_pictures(finding, scored, scored.map_seen)
            findings = prediction_page.lean([*findings, finding])
        (work / "scores.csv").write_text(_table(findings))
        banners = [] if len(scorer.normals) else [NO_NORMALS]
        prediction_page.write_page(work / "index.html", name, findings, banners)
        shutil.rmtree(out, ignore_errors=True)
    return out


def _table(findings: list[Finding]) -> str:
    """Format scores.csv."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "score", "p_value", "pred_label"])
    for finding in findings:
        p_value = "" if finding.p_value is None else repr(finding.p_value)
        pred_label = "" if finding.called is None else int(finding.called)
        writer.writerow([finding.id, repr(finding.score), p_value, pred_label])
    return table.getvalue()


def _with_pictures(finding: Finding, scored: ScoredScan, whole: NDArray[np.float32]) -> Finding:
    """Add pictures to a finding and, if the lesion is known, the pixel AUROC of the map."""
    scan = scored.cut.scan
    image = to_float(scan.pixels[None])[0].numpy()
    mask = None if scan.mask is None else scan.mask[0]
    if mask is not None:
        inside = np.ones(mask.shape, bool) if scan.foreground is None else filled(scan.foreground[0]) | mask
        finding = replace(finding, auroc=ranking.auroc(mask[inside].astype(np.int64), whole[inside].astype(np.float64)))
    return replace(finding, views=prediction_page.views(image, whole, mask, scored.cut.across or 0))


def _write_map(folder: Path, scored: ScoredScan) -> None:
    """Save a map in the space of its scan."""
    target = folder / scored.case.id
    target.parent.mkdir(parents=True, exist_ok=True)
    if scored.scan.affine is None:
        assert scored.map_seen is not None
        _write_picture(target.with_name(f"{target.name}.png"), scored.map_seen)
        return
    assert scored.anomaly_map is not None
    name = target.name.removesuffix(".gz").removesuffix(".nii")
    save_map(target.with_name(f"{name}.nii.gz"), scored.anomaly_map, scored.scan.affine)
    if scored.case.slices and find_spec("highdicom"):
        files = (scored.case.image, *scored.case.slices)
        try:
            write_parametric_map(target.with_name(f"{target.name}.map.dcm"), scored.anomaly_map, files)
        except UserError as error:  # an incomplete header; the NIfTI map was written
            say(f"no Parametric Map for {scored.case.id}: {error}")


def _write_picture(path: Path, anomaly_map: NDArray[np.float32]) -> None:
    """Save a map as 16-bit grey; 0 to 2, the largest difference of pixels in [-1, 1], map to the full range."""
    Image.fromarray((anomaly_map.clip(0, 2) / 2 * 65535).round().astype(np.uint16)).save(path)
