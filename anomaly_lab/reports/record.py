"""Read a run folder, finished or not, for the report."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from anomaly_lab.evaluation import classes
from anomaly_lab.evaluation.classes import ClassTable
from anomaly_lab.experiment.quality import read_quality
from anomaly_lab.experiment.record import read_metrics, read_provenance
from anomaly_lab.experiment.regular import regular
from anomaly_lab.experiment.tables import restored
from anomaly_lab.reports import counterpart, images
from anomaly_lab.reports.charts import Row
from anomaly_lab.reports.counterpart import Counterparts, Pair
from anomaly_lab.reports.gallery import FIXED_CASES, MISSED, Arrays, read_gallery
from anomaly_lab.types import UserError

GALLERY_CASES = 8  # cases per gallery at most
GALLERY_BYTES = 2**32  # of a gallery's arrays in memory
MISSED_BYTES = 2_000_000  # of the pictures of all missed cases on a page, about
MISSED_SIDES = (256, 128, 96, 64)  # pixels per side: the first that they have room for
SHEETS = ("interpolation", "style_mixing", "most_alike")  # samples/<name>.png
PARTS = ("image", "reconstruction", "anomaly_map", "mask")


class Record(NamedTuple):
    """Content of a run folder; parts that do not exist are empty.

    Attributes:
        name: of the run.
        config: text of config.yaml.
        provenance: content of provenance.json.
        metrics: content of metrics.json, with the present names of its keys.
        log: lines of metrics.jsonl.
        unreadable: number of lines of metrics.jsonl that could not be read.
        scores: rows of scores.csv.
        samples: iteration and data URI of each sample grid shown.
        pool: for the fake pool's picture, the iteration of each row, and the data URI; None without a pool.
        pictures: of every callback that keeps some, by the name of its folder below samples/, iteration and data URI.
        gallery: cases with their pictures by outcome: tp, fp, tn, fn, and those of `classes.SHOWN` for each class.
        classes: content of classes.csv; None for a run without labels.
        counterparts: the fixed cases, normals first, beside their reconstructions; None if there are none.
        sheets: data URI of each sheet of images, by the names in SHEETS.
        quality: content of quality.json; empty where nothing was measured.
        missed: all missed cases of which there is a picture, lowest scores first.
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
    pictures: dict[str, list[tuple[int, str]]]
    gallery: dict[str, list[Row]]
    classes: ClassTable | None = None
    counterparts: Counterparts | None = None
    sheets: Mapping[str, str] = MappingProxyType({})
    quality: dict[str, Any] = {}  # noqa: RUF012 – read only
    missed: list[Row] = []  # noqa: RUF012 – read only

    def has(self, part: str) -> bool:
        """Return whether any case of the gallery has a part: reconstruction, overlay or outline."""
        return any(part in case for cases in self.gallery.values() for case in cases)


def read_run(run: Path) -> Record:
    """Read a run folder, finished or not.

    Args:
        run: the run folder.

    Raises:
        UserError: `run` is not a run folder, or one of its files cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "config.yaml").write_text("seed: 0")
        ...     _ = (Path(folder) / "metrics.jsonl").write_text('{"iteration": 10, "train/critic": 0.5}')
        ...     record = read_run(Path(folder))
        >>> record.config, record.log, record.metrics
        ('seed: 0', [{'iteration': 10, 'train/critic': 0.5}], {})
    """
    if not any((run / name).is_file() for name in ("config.yaml", "provenance.json")):
        raise UserError(f"{run} is not a run folder (it has no config.yaml): give a folder below runs/")
    scores = _scores(run / "scores.csv")
    stored = read_gallery(run)
    log, unreadable = _log(_text(run / "metrics.jsonl"))
    provenance = read_provenance(run)
    return Record(
        name=str(provenance.get("run") or run.name),
        config=_text(run / "config.yaml"),
        provenance=provenance,
        metrics=read_metrics(run),
        log=log,
        unreadable=unreadable,
        scores=scores,
        samples=_samples(run / "samples"),
        pool=_pool(run / "samples" / "fakepool.png"),
        pictures=_pictures(run / "samples"),
        gallery=_gallery(stored, scores),
        classes=ClassTable.read(run / classes.FILE) if (run / classes.FILE).is_file() else None,
        counterparts=_counterparts(stored, scores),
        sheets=_sheets(run / "samples"),
        quality=read_quality(run),
        missed=_missed(read_gallery(run, MISSED), scores, _brightest(stored) if stored else None),
    )


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace") if path.is_file() else ""


def _log(text: str) -> tuple[list[Row], int]:
    lines: list[Row] = []
    all_lines = text.splitlines()
    for line in all_lines:
        with contextlib.suppress(
            ValueError, TypeError, RecursionError
        ):  # the last line of a killed run may be incomplete
            lines.append(dict(json.loads(line)))
    return lines, len(all_lines) - len(lines)


def _scores(path: Path) -> list[Row]:
    rows = []
    for line, raw in enumerate(_table(path), start=2):
        row: Row = dict(raw)
        try:
            row |= {k: restored(raw[k]) for k in ("id", "patient", "split") if raw.get(k)}
            row |= {k: float(v) if v else None for k, v in raw.items() if k not in ("id", "patient", "split")}
            row |= {"label": int(raw["label"]), "score": float(raw["score"])}
            row["pred_label"] = int(raw["pred_label"]) if raw.get("pred_label") else None
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{path}, line {line}: not a valid row of scores; `make evaluate RUN={path.parent}` writes it again"
            ) from None
        rows.append(row)
    return rows


def _table(path: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO(_text(path), newline="")))
    except csv.Error as error:
        raise UserError(f"{path}: no table ({error}); `make evaluate RUN={path.parent}` writes it again") from None


def _samples(folder: Path) -> list[tuple[int, str]]:
    """Read at most six grids, <iteration>.png, evenly spaced, from the first to the last."""
    files = sorted(path for path in folder.glob("*.png") if path.stem.isdigit())
    chosen = [files[i] for i in sorted({round(i * (len(files) - 1) / 5) for i in range(6)})] if files else []
    return [(int(path.stem), images.png_uri(path.read_bytes())) for path in chosen if _is_picture(path)]


def _pictures(folder: Path) -> dict[str, list[tuple[int, str]]]:
    """Read the grids of each sub-folder that has any."""
    found = {path.name: _samples(path) for path in sorted(folder.glob("*/"))}
    return {name: grids for name, grids in found.items() if grids}


def _sheets(folder: Path) -> dict[str, str]:
    """Read the sheets of images that the run has left."""
    found = {name: folder / f"{name}.png" for name in SHEETS}
    return {name: images.png_uri(path.read_bytes()) for name, path in found.items() if _is_picture(path)}


def _is_picture(path: Path) -> bool:
    """Return whether there is a picture and all of it, which is not so if the run was killed."""
    try:
        with Image.open(regular(path)) as picture:
            picture.verify()
    except (OSError, SyntaxError, UnidentifiedImageError):
        return False
    return True


def _pool(path: Path) -> tuple[list[int], str] | None:
    """Read the fake pool's picture, whose metadata has the iteration of each row."""
    try:
        with Image.open(regular(path)) as picture:
            picture.verify()
            iterations = str(picture.info.get("iterations", ""))
    except (OSError, SyntaxError, UnidentifiedImageError):
        return None
    return [int(number) for number in iterations.split(",") if number], images.png_uri(path.read_bytes())


def _gallery(arrays: Arrays, scores: list[Row]) -> dict[str, list[Row]]:
    if not arrays:
        return {}
    rows = {row["id"]: row for row in scores}
    brightest = _brightest(arrays)
    galleries: dict[str, list[Row]] = {}
    for i, (case, kind) in enumerate(zip(arrays["id"].tolist(), arrays["kind"].tolist(), strict=True)):
        galleries.setdefault(kind, []).append(_exhibit(arrays, i, brightest) | rows.get(case, {}) | {"id": case})
    for kind, cases in galleries.items():
        if ":" in kind:
            continue  # of a class: in the order of its probability
        cases.sort(key=lambda case: float(case.get("score", 0.0)), reverse=kind in ("tp", "fp"))
        del cases[GALLERY_CASES:]
    return galleries


def _missed(arrays: Arrays, scores: list[Row], brightest: float | None) -> list[Row]:
    """Return the missed cases that there are pictures of, as small as the page has room for them.

    They are those of the present threshold, whatever was missed at the one at which the pictures were kept.
    """
    missed = [row for row in scores if row["split"] == "test" and (row["label"], row["pred_label"]) == (1, 0)]
    places = {case: i for i, case in enumerate(arrays["id"].tolist())} if arrays else {}
    shown = sorted((row for row in missed if row["id"] in places), key=lambda row: float(row["score"]))
    if not shown:
        return []
    brightest = _brightest(arrays) if brightest is None else brightest
    few = [places[row["id"]] for row in shown[:8]]
    for side in MISSED_SIDES:
        size = sum(
            len(uri) for i in few for uri in _exhibit(arrays, i, brightest, side).values() if isinstance(uri, str)
        )
        if size / len(few) * len(shown) <= MISSED_BYTES:
            break
    return [_exhibit(arrays, places[row["id"]], brightest, side) | row for row in shown]


def _brightest(arrays: Arrays) -> float:
    """Return the map value with the brightest colour, the same for all cases."""
    maps = arrays.get("anomaly_map")
    return float(np.nanquantile(maps, 0.995)) if maps is not None and maps.size else 1.0


def _counterparts(arrays: Arrays, scores: list[Row]) -> Counterparts | None:
    """Show the fixed cases beside their reconstructions: the first test normals by id, then the first anomalous ones.

    An older run has kept fewer of them.
    """
    if "reconstruction" not in arrays:
        return None
    places = {case: i for i, case in reversed(list(enumerate(arrays["id"].tolist())))}
    test = sorted((row for row in scores if row["split"] == "test"), key=lambda row: str(row["id"]))
    fixed = [row for label in (0, 1) for row in [row for row in test if row["label"] == label][:FIXED_CASES]]
    parts = [arrays.get(name) for name in ("anomaly_map", "mask")]
    pairs = (
        Pair(
            row,
            arrays["image"][i],
            arrays["reconstruction"][i],
            *(None if part is None else part[i, 0] for part in parts),
        )
        for row in fixed
        if (i := places.get(row["id"])) is not None
    )
    return counterpart.shown(pairs, _brightest(arrays))


def _exhibit(arrays: Arrays, i: int, brightest: float, largest: int = images.ENLARGED) -> Row:
    """Return the pictures of one case: input, reconstruction and overlay as data URIs, the lesion as an SVG path."""
    image = arrays["image"][i]
    exhibit: Row = {"size": image.shape[-2:], "image": images.picture_uri(images.shades(image), largest)}
    if "reconstruction" in arrays:
        exhibit["reconstruction"] = images.picture_uri(images.shades(arrays["reconstruction"][i]), largest)
    if "anomaly_map" in arrays:
        exhibit["overlay"] = images.picture_uri(images.overlay(image, arrays["anomaly_map"][i, 0], brightest), largest)
    if "mask" in arrays and arrays["mask"][i].any():
        exhibit["outline"] = images.outline(arrays["mask"][i, 0])
    return exhibit
