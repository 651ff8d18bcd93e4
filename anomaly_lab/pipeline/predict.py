"""Scores new files with a trained run: its preprocessing, its threshold, its held-out normals.

Pictures, NIfTI volumes and DICOM series. A volume's map is carried back to the scan's own grid. A detector that has
no map of its own gets one from its scores: a window slides over the scan, and each score fills its window.
"""

import csv
import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress
from scipy.ndimage import binary_fill_holes

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.preprocessing.patches import shares
from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.readers.dicom_parametric_map import write_parametric_map
from anomaly_lab.data.readers.files import find_cases
from anomaly_lab.data.readers.geometry import onto
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.store.disk import disk_errors, fresh_folder
from anomaly_lab.data.store.plan import CutScan
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.evaluation.scoring import score_batches
from anomaly_lab.evaluation.stitching import Rule, Stitcher, case_scores, save_map, score_maps
from anomaly_lab.experiment import run_folder
from anomaly_lab.metrics import ranking
from anomaly_lab.metrics.thresholds import conformal_p_values
from anomaly_lab.pipeline.console import console, say
from anomaly_lab.reports import prediction_page
from anomaly_lab.reports.prediction_page import NO_NORMALS, Finding
from anomaly_lab.types import Batch, Case, UserError


class _Opened(NamedTuple):
    """A case that was read and cut, how many windows it has and which of them count for its score, [n]."""

    case: Case
    scan: Scan
    cut: CutScan
    windows: int
    counted: NDArray[np.bool_]


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


def predict_files(run: Path, data: PatchDataModule, detector: Detector, cases: list[Case], out: Path) -> Path:
    """Write scores.csv (id, score, p_value, pred_label), a map of every case, and index.html, a page of them.

    maps/<id>.png for pictures; maps/<id>.nii.gz for volumes, on the scan's own grid with its affine; for a DICOM series
    maps/<id>.map.dcm as well, a Parametric Map, where highdicom is installed. Where the detector has no map and a scan
    several windows, the map says how the scores of the windows over a pixel compare with the run's held-out normals:
    0 is their least, 1 its threshold; averaged where windows overlap. A run without held-out normals measures from the
    scan's own least score to its highest.

    Args:
        run: the trained and judged run.
        data: its data set, for the preprocessing.
        detector: its detector.
        cases: see `new_cases`.
        out: the folder to write; whole or not at all, an older one is replaced.

    Returns:
        `out`.

    Raises:
        UserError: an unreadable file, or a run that was never judged.
    """
    metrics = run_folder.read_json(run / "metrics.json")
    if not metrics:
        raise UserError(f"{run} was never judged, so it has no threshold; first: make evaluate RUN={run}")
    threshold = metrics["threshold"]["value"]
    judged = Scores.read(run / "scores.csv")
    normals = judged.score[judged.normals]
    bounded = data.patch_sampling is not None and data.patch_sampling.foreground > 0
    findings: list[Finding] = []
    with disk_errors(out.parent), fresh_folder(out) as work:
        for opened, scores, maps in _scored(data, detector, cases):
            score = _score_of(metrics["unit"], scores[opened.counted])
            p_value = conformal_p_values(np.array([score]), normals).item() if len(normals) else None
            if maps is None and len(scores) > 1:
                known = (float(normals.min()), threshold) if threshold is not None else _reach(scores[opened.counted])
                maps = score_maps(scores, data.patch_size, *known)
            finding = Finding(opened.case.id, score, p_value, None if threshold is None else score > threshold)
            if maps is not None:
                whole = _stitched(opened, maps, bounded)
                _write_map(work / "maps", opened, whole)
                finding = _seen(finding, opened, whole)
            findings = prediction_page.lean([*findings, finding])
        (work / "scores.csv").write_text(_table(findings))
        prediction_page.write_page(work / "index.html", run.name, findings, [] if len(normals) else [NO_NORMALS])
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


def _reach(scores: NDArray[np.float64]) -> tuple[float, float]:
    return float(scores.min()), float(scores.max())


def _scored(
    data: PatchDataModule, detector: Detector, cases: list[Case]
) -> Iterator[tuple[_Opened, NDArray[np.float64], NDArray[np.float32] | None]]:
    """Every case with the raw scores [n] and maps [n, *P] of its windows."""
    with Progress(console=console) as progress:
        task = progress.add_task("scoring", total=len(cases))
        for group in _groups(data, cases):
            patches = np.concatenate([block for opened in group for block, _ in opened.cut.blocks()])
            scores, maps = _predicted(data, detector, patches)
            ends = np.cumsum([opened.windows for opened in group])
            for opened, end in zip(group, ends.tolist(), strict=True):
                mine = slice(end - opened.windows, end)
                yield opened, scores[mine], None if maps is None else maps[mine]
                progress.advance(task)


def _groups(data: PatchDataModule, cases: list[Case]) -> Iterator[list[_Opened]]:
    """Cases with about a batch of windows together: many pictures or one volume."""
    group: list[_Opened] = []
    for case in cases:
        cut, scan = data.cut_for_scoring(case)
        group.append(_Opened(case, scan, cut, len(cut.windows.label), _counted(data, cut)))
        if sum(opened.windows for opened in group) >= data.scoring_batch_size:
            yield group
            group = []
    if group:
        yield group


def _counted(data: PatchDataModule, cut: CutScan) -> NDArray[np.bool_]:
    """Windows with as much foreground as the run was trained and judged on; all, if there are none."""
    everything = np.ones(len(cut.windows.label), bool)
    if data.patch_sampling is None or cut.scan.foreground is None:
        return everything
    enough = shares(cut.scan.foreground, cut.windows.location, cut.extent) >= data.patch_sampling.foreground
    return enough if enough.any() else everything


def _predicted(
    data: PatchDataModule, detector: Detector, patches: np.ndarray
) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
    """Scores [n] and maps [n, *P] of patches [n, C, *P], batch by batch."""
    size = data.scoring_batch_size
    batches = (Batch(image=to_float(patches[start : start + size])) for start in range(0, len(patches), size))
    parts = [scored for _, scored in score_batches(detector.score, batches, detector.device)]
    maps = [part.anomaly_map[:, 0] for part in parts if part.anomaly_map is not None]
    return np.concatenate([part.score for part in parts]), np.concatenate(maps) if maps else None


def _score_of(unit: dict[str, Any], scores: NDArray[np.float64]) -> float:
    """One score of a case's windows; of several by the rule the run was judged by, or else the highest."""
    rule: Rule = "max" if unit["rule"] == "none" else unit["rule"]
    return float(case_scores(scores, np.zeros(len(scores), int), rule, unit["top_k"])[1][0])


def _stitched(opened: _Opened, maps: NDArray[np.float32], bounded: bool) -> NDArray[np.float32]:
    """The windows' maps as one, in the space of the prepared scan; `bounded`: 0 off the foreground."""
    cut = opened.cut
    stitcher = Stitcher(cut.scan.pixels.shape[1:])
    stitcher.add(maps, cut.windows.location, cut.across)
    whole: NDArray[np.float32] = stitcher.result()
    if bounded and cut.scan.foreground is not None:
        whole *= _filled(cut.scan.foreground[0])
    return whole


def _filled(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    filled: NDArray[np.bool_] = binary_fill_holes(foreground)  # fluid in a CT's brain window is as dark as air
    return filled


def _seen(finding: Finding, opened: _Opened, whole: NDArray[np.float32]) -> Finding:
    """The finding with its pictures, and how well the map's pixels tell the lesion, if it is known."""
    scan = opened.cut.scan
    image = to_float(scan.pixels[None])[0].numpy()
    mask = None if scan.mask is None else scan.mask[0]
    if mask is not None:
        inside = np.ones(mask.shape, bool) if scan.foreground is None else _filled(scan.foreground[0]) | mask
        finding = replace(finding, auroc=ranking.auroc(mask[inside].astype(np.int64), whole[inside].astype(np.float64)))
    return replace(finding, views=prediction_page.views(image, whole, mask, opened.cut.across or 0))


def _write_map(folder: Path, opened: _Opened, whole: NDArray[np.float32]) -> None:
    """Save a map in the space of its scan."""
    cut, scan = opened.cut, opened.scan
    target = folder / opened.case.id
    target.parent.mkdir(parents=True, exist_ok=True)
    if scan.affine is None:
        _write_picture(target.with_name(f"{target.name}.png"), whole)
        return
    assert cut.scan.affine is not None
    ours = onto(whole[None], cut.scan.affine, scan.affine, scan.shape)[0]
    save_map(target.with_name(f"{target.name.removesuffix('.gz').removesuffix('.nii')}.nii.gz"), ours, scan.affine)
    if opened.case.slices and find_spec("highdicom"):
        files = (opened.case.image, *opened.case.slices)
        try:
            write_parametric_map(target.with_name(f"{target.name}.map.dcm"), ours, files)
        except UserError as error:  # a header that lacks something: the NIfTI map is there
            say(f"no Parametric Map of {opened.case.id}: {error}")


def _write_picture(path: Path, anomaly_map: NDArray[np.float32]) -> None:
    """Save a map as 16-bit grey; 0 to 2, the largest distance in [-1, 1], fill the range, so maps stay comparable."""
    Image.fromarray((anomaly_map.clip(0, 2) / 2 * 65535).round().astype(np.uint16)).save(path)
