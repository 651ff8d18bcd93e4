"""Reads a run folder, finished or not, into what the report shows."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from anomaly_lab.experiment.run_folder import in_current_words
from anomaly_lab.reports import images
from anomaly_lab.reports.charts import Row
from anomaly_lab.types import UserError

GALLERY_CASES = 8  # cases of a gallery


class Record(NamedTuple):
    """All that a run folder says; a part that is missing is empty.

    Attributes:
        name: of the run.
        config: text of config.yaml.
        provenance: content of provenance.json.
        metrics: content of metrics.json.
        log: lines of metrics.jsonl.
        unreadable: how many of its lines could not be read.
        scores: rows of scores.csv.
        samples: iteration and data URI of each sample grid.
        pool: iteration of each row of the fake pool's picture and its data URI.
        gallery: cases by kind (tp, fp, tn, fn) with their pictures.
    """

    name: str
    config: str
    provenance: dict[str, Any]
    metrics: dict[str, Any]
    log: list[Row]
    unreadable: int
    scores: list[Row]
    samples: list[tuple[int, str]]
    pool: tuple[list[int], str] | None
    gallery: dict[str, list[Row]]

    def has(self, part: str) -> bool:
        """Whether any case of the gallery has it: reconstruction, overlay or outline."""
        return any(part in case for cases in self.gallery.values() for case in cases)


def read_run(run: Path) -> Record:
    """Reads a run folder, finished or not.

    Raises:
        UserError: not a run folder, or one of its files cannot be read.
    """
    if not any((run / name).is_file() for name in ("config.yaml", "provenance.json")):
        raise UserError(f"{run} is not a run folder (no config.yaml): name a folder below runs/")
    scores = _scores(run / "scores.csv")
    log, unreadable = _log(_text(run / "metrics.jsonl"))
    provenance = _json(run / "provenance.json")
    return Record(
        name=str(provenance.get("run") or run.name),
        config=_text(run / "config.yaml"),
        provenance=provenance,
        metrics=in_current_words(_json(run / "metrics.json")),
        log=log,
        unreadable=unreadable,
        scores=scores,
        samples=_samples(run / "samples"),
        pool=_pool(run / "samples" / "fakepool.png"),
        gallery=_gallery(run / "samples" / "gallery.npz", scores),
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(path) or "{}")
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}): make evaluate RUN={path.parent} writes it anew") from None
    return content if isinstance(content, dict) else {}


def _log(text: str) -> tuple[list[Row], int]:
    lines: list[Row] = []
    written = text.splitlines()
    for line in written:
        with contextlib.suppress(json.JSONDecodeError):  # the last line of a killed run may be torn
            lines.append(dict(json.loads(line)))
    return lines, len(written) - len(lines)


def _scores(path: Path) -> list[Row]:
    rows = []
    for line, raw in enumerate(csv.DictReader(io.StringIO(_text(path))), start=2):
        row: Row = dict(raw)
        try:
            row |= {k: float(v) if v else None for k, v in raw.items() if k not in ("id", "patient", "split")}
            row |= {"label": int(raw["label"]), "score": float(raw["score"])}
            row["pred_label"] = int(raw["pred_label"]) if raw.get("pred_label") else None
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{path}, line {line}: not a score; make evaluate RUN={path.parent} writes it anew"
            ) from None
        rows.append(row)
    return rows


def _samples(folder: Path) -> list[tuple[int, str]]:
    """At most six of the sample grids, the first and the last among them."""
    files = sorted(path for path in folder.glob("*.png") if path.stem.isdigit())
    kept = [files[i] for i in sorted({round(i * (len(files) - 1) / 5) for i in range(6)})] if files else []
    found = []
    for path in kept:
        try:
            with Image.open(path) as picture:
                picture.verify()
        except (OSError, SyntaxError, UnidentifiedImageError):
            continue  # torn by a kill; the others still tell the story
        found.append((int(path.stem), images.png_uri(path.read_bytes())))
    return found


def _pool(path: Path) -> tuple[list[int], str] | None:
    """Rows and data URI of the fake pool's picture, which says itself when its rows were drawn."""
    try:
        with Image.open(path) as picture:
            picture.verify()
            said = str(picture.info.get("iterations", ""))
    except (OSError, SyntaxError, UnidentifiedImageError):
        return None
    return [int(number) for number in said.split(",") if number], images.png_uri(path.read_bytes())


def _gallery(path: Path, scores: list[Row]) -> dict[str, list[Row]]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({error}): make evaluate RUN={path.parents[1]} writes it anew"
        ) from None
    rows = {row["id"]: row for row in scores}
    maps = arrays.get("anomaly_map")
    brightest = float(np.nanquantile(maps, 0.995)) if maps is not None and maps.size else 1.0
    galleries: dict[str, list[Row]] = {}
    for i, (case, kind) in enumerate(zip(arrays["id"].tolist(), arrays["kind"].tolist(), strict=True)):
        galleries.setdefault(kind, []).append(_exhibit(arrays, i, brightest) | rows.get(case, {}) | {"id": case})
    for kind, cases in galleries.items():
        cases.sort(key=lambda case: float(case.get("score", 0.0)), reverse=kind in ("tp", "fp"))
        del cases[GALLERY_CASES:]
    return galleries


def _exhibit(arrays: dict[str, Any], i: int, brightest: float) -> Row:
    """Pictures of one case: input, reconstruction and overlay as data URIs, the lesion as an SVG path."""
    image = arrays["image"][i]
    exhibit: Row = {"size": image.shape[-2:], "image": images.data_uri(images.shades(image))}
    if "reconstruction" in arrays:
        exhibit["reconstruction"] = images.data_uri(images.shades(arrays["reconstruction"][i]))
    if "anomaly_map" in arrays:
        exhibit["overlay"] = images.data_uri(images.overlay(image, arrays["anomaly_map"][i, 0], brightest))
    if "mask" in arrays and arrays["mask"][i].any():
        exhibit["outline"] = images.outline(arrays["mask"][i, 0])
    return exhibit
