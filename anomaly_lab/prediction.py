"""Scores new pictures with a trained run: its preprocessing, its threshold, its held-out normals."""

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from anomaly_lab import runs
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.disk import disk_errors, fresh_folder
from anomaly_lab.detector import Detector
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.metrics.thresholds import conformal_p_values
from anomaly_lab.types import Batch, UserError

PICTURES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff")


def predict_folder(run: Path, data: PatchDataModule, detector: Detector, folder: Path, out: Path) -> Path:
    """Write scores.csv (id, score, p_value, pred_label) and maps/<id>.png of every picture below `folder`.

    Args:
        run: the trained and judged run.
        data: its data set, for the preprocessing.
        detector: its detector.
        folder: searched with all its subfolders; an id is the path below it.
        out: the folder to write; whole or not at all, an older one is replaced.

    Returns:
        `out`.

    Raises:
        UserError: no pictures, an unreadable one, or a run that was never judged.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if not files:
        raise UserError(f"{folder}: no pictures ({', '.join(PICTURES)}) in it or below; give INPUT=<folder>")
    metrics = runs.read_json(run / "metrics.json")
    if not metrics:
        raise UserError(f"{run} was never judged, so it has no threshold; first: make evaluate RUN={run}")
    threshold = metrics["threshold"]["value"]
    judged = Scores.read(run / "scores.csv")
    normals = judged.score[judged.normals]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "score", "p_value", "pred_label"])
    with disk_errors(out.parent), fresh_folder(out) as work:
        for path, (score, anomaly_map) in zip(files, _scored(data, detector, files), strict=True):
            id = path.relative_to(folder).as_posix()
            p_value = repr(conformal_p_values(np.array([score]), normals).item()) if len(normals) else ""
            writer.writerow([id, repr(score), p_value, "" if threshold is None else int(score > threshold)])
            if anomaly_map is not None:
                _write_map(work / "maps" / f"{id}.png", anomaly_map)
        (work / "scores.csv").write_text(table.getvalue())
        shutil.rmtree(out, ignore_errors=True)
    return out


def _scored(
    data: PatchDataModule, detector: Detector, files: list[Path]
) -> Iterator[tuple[float, NDArray[np.float32] | None]]:
    """Raw score and map [H, W] of each file."""
    size = data.scoring_batch_size
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("scoring", total=len(files))
        for start in range(0, len(files), size):
            image = data.read_for_scoring(files[start : start + size]).to(detector.device)
            prediction = detector.score(Batch(image=image))
            maps = prediction.anomaly_map
            for i, score in enumerate(prediction.anomaly_score.double().tolist()):
                yield score, None if maps is None else maps[i, 0].cpu().numpy()
                progress.advance(task)


def _write_map(path: Path, anomaly_map: NDArray[np.float32]) -> None:
    """Save a map as 16-bit grey; 0 to 2, the largest distance in [-1, 1], fill the range, so maps stay comparable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((anomaly_map.clip(0, 2) / 2 * 65535).round().astype(np.uint16)).save(path)
