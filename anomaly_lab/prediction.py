"""Scores new pictures with a trained run: its preprocessing, its threshold, its held-out normals."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from anomaly_lab import runs
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detector import Detector
from anomaly_lab.evaluation.protocol import Scores
from anomaly_lab.metrics.thresholds import conformal_p_values
from anomaly_lab.types import Batch, UserError

PICTURES = {".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".tif", ".tiff", ".bmp"}


def predict_folder(run: Path, data: PatchDataModule, detector: Detector, folder: Path, out: Path | None) -> Path:
    """Write scores.csv (id, score, p_value, pred_label) and maps/<id>.png of every picture below `folder`.

    Args:
        run: the trained and judged run.
        data: its data set, for the preprocessing.
        detector: its detector.
        folder: searched with all its subfolders.
        out: where to write; `<run>/predictions/<folder's name>` unless said otherwise.

    Returns:
        The folder written.

    Raises:
        UserError: no pictures, an unreadable one, or a run that was never judged.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if not files:
        raise UserError(f"{folder}: no pictures ({', '.join(sorted(PICTURES))}) in it or below; give INPUT=<folder>")
    if not (run / "metrics.json").exists():
        raise UserError(f"{run} was never judged, so it has no threshold; first: make evaluate RUN={run}")
    threshold = json.loads((run / "metrics.json").read_text())["threshold"]["value"]
    judged = Scores.read(run / "scores.csv")
    normals = judged.score[judged.normals]
    out = out or run / "predictions" / folder.resolve().name
    ids = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    if len(set(ids)) < len(ids):
        ids = [path.relative_to(folder).as_posix() for path in files]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "score", "p_value", "pred_label"])
    for id, (score, anomaly_map) in zip(ids, _scored(data, detector, files), strict=True):
        p_value = conformal_p_values(np.array([score]), normals)[0] if len(normals) else None
        called = int(score > threshold) if threshold is not None else None
        writer.writerow([id, repr(score), p_value, called])
        if anomaly_map is not None:
            _write_map(out / "maps" / f"{id}.png", anomaly_map)
    out.mkdir(parents=True, exist_ok=True)
    runs.write_atomic(out / "scores.csv", text.getvalue())
    return out


def _scored(
    data: PatchDataModule, detector: Detector, files: list[Path]
) -> Iterator[tuple[float, NDArray[np.float32] | None]]:
    """Raw score and map [H, W] of each file."""
    size = data.scoring_batch_size
    starts = range(0, len(files), size)
    for start in track(starts, "scoring", console=Console(stderr=True), disable=len(starts) < 2):
        image = data.read_for_scoring(files[start : start + size]).to(detector.device)
        prediction = detector.score(Batch(image=image))
        maps = prediction.anomaly_map
        for i, score in enumerate(prediction.anomaly_score.double().tolist()):
            yield score, None if maps is None else maps[i, 0].cpu().numpy()


def _write_map(path: Path, anomaly_map: NDArray[np.float32]) -> None:
    """Save a map as 16-bit grey; 0 to 2, the largest distance in [-1, 1], fill the range, so maps stay comparable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = (anomaly_map.clip(0, 2) / 2 * 65535).round().astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    runs.write_atomic(path, buffer.getvalue())
