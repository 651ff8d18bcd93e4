"""Scores new files with a trained run and writes what it says of them: a table, maps, a page."""

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
from anomaly_lab.data.readers.nifti import save_map
from anomaly_lab.data.store.disk import disk_errors, fresh_folder
from anomaly_lab.evaluation.maps import filled
from anomaly_lab.metrics import ranking
from anomaly_lab.pipeline.console import console, say
from anomaly_lab.pipeline.scorer import ScoredScan, Scorer
from anomaly_lab.reports import prediction_page
from anomaly_lab.reports.prediction_page import NO_NORMALS, Finding
from anomaly_lab.types import Case, UserError


def new_cases(source: Path, masks: Path | None = None) -> list[Case]:
    """What is to be scored: every picture and scan in or below `source`.

    Args:
        source: a file, or a folder that is searched with all its subfolders; an id is the path below it.
        masks: known lesions, a file for a file or a folder of files named like theirs; only shown, never used.

    Raises:
        UserError: nothing to score, or a mask of nothing.
    """
    cases = find_cases(source) if source.exists() else []
    if not cases:
        raise UserError(f"{source}: no pictures, NIfTI volumes or DICOM files in it or below; give INPUT=<folder>")
    if masks is None:
        return cases
    paths = {case.id: masks / case.id if masks.is_dir() else masks for case in cases}
    if not any(path.is_file() for path in paths.values()):
        raise UserError(f"{masks}: no mask here is named like its picture or scan, as {cases[0].id}; see MASKS=…")
    return [replace(case, mask=paths[case.id] if paths[case.id].is_file() else None) for case in cases]


def predict_files(name: str, scorer: Scorer, cases: list[Case], out: Path) -> Path:
    """Write scores.csv (id, score, p_value, pred_label), a map of every case, and index.html, a page of them.

    maps/<id>.png for pictures; maps/<id>.nii.gz for volumes, on the scan's own grid with its affine; for a DICOM series
    maps/<id>.map.dcm as well, a Parametric Map, where highdicom is installed. Where the detector has no map and a scan
    several windows, the map says how the scores of the windows over a pixel compare with the run's validation normals:
    0 is their least, 1 its threshold; averaged where windows overlap. A run without validation normals measures from
    the scan's own least score to its highest.

    Args:
        name: of the run.
        scorer: of the run.
        cases: see `new_cases`.
        out: the folder to write; whole or not at all, an older one is replaced.

    Returns:
        `out`.

    Raises:
        UserError: an unreadable file.
    """
    findings: list[Finding] = []
    with disk_errors(out.parent), fresh_folder(out) as work, Progress(console=console) as progress:
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
    """scores.csv."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "score", "p_value", "pred_label"])
    for found in findings:
        p_value = "" if found.p_value is None else repr(found.p_value)
        writer.writerow([found.id, repr(found.score), p_value, "" if found.called is None else int(found.called)])
    return table.getvalue()


def _with_pictures(finding: Finding, scored: ScoredScan, whole: NDArray[np.float32]) -> Finding:
    """The finding with its pictures, and how well the map's pixels tell the lesion, if it is known."""
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
    save_map(target.with_name(f"{name}.nii.gz"), scored.anomaly_map, scored.scan.affine, scored.case.image)
    if scored.case.slices and find_spec("highdicom"):
        files = (scored.case.image, *scored.case.slices)
        try:
            write_parametric_map(target.with_name(f"{target.name}.map.dcm"), scored.anomaly_map, files)
        except UserError as error:  # a header that lacks something: the NIfTI map is there
            say(f"no Parametric Map of {scored.case.id}: {error}")


def _write_picture(path: Path, anomaly_map: NDArray[np.float32]) -> None:
    """Save a map as 16-bit grey; 0 to 2, the largest distance in [-1, 1], fill the range, so maps stay comparable."""
    Image.fromarray((anomaly_map.clip(0, 2) / 2 * 65535).round().astype(np.uint16)).save(path)
