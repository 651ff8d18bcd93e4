"""The pictures of a study, from its run folders: generated images, and reconstructions and maps of the same cases."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from anomaly_lab.experiment.regular import regular
from anomaly_lab.reports import images
from anomaly_lab.reports.gallery import read_gallery
from anomaly_lab.studies.findings import Findings
from anomaly_lab.studies.plan import Repeat
from anomaly_lab.studies.results import Result
from anomaly_lab.types import UserError

CASES_PER_CLASS = 3
PARTS = {"reconstruction", "anomaly_map"}  # pictures that a run may have stored of a case
LARGEST = 256  # pixels per side of a picture, because a page holds a dozen for every row
SIDE = 8  # generated images per row, as in the grids of callbacks.samples
TILE = 96  # pixels per side of a generated image
STRIPS = 2  # rows of generated images that are shown
EMPTY = {"id": np.empty(0, str)}


class Case(NamedTuple):
    """A column of the gallery: a test case.

    Attributes:
        id: of the test case.
        anomalous: its label.
        pixels: the image, [C, H, W] in [-1, 1].
        image: the same as a data URI.
        outline: SVG path of the lesion in pixels; "" where none is known.
    """

    id: str
    anomalous: bool
    pixels: np.ndarray
    image: str
    outline: str


class Strip(NamedTuple):
    """A row of the gallery: the pictures of a run.

    Attributes:
        title: of the study's row.
        seed: of the run, and its fold.
        samples: data URI of the last generated images; "" if the detector cannot generate.
        parts: name in PARTS -> data URI by case id, maps overlaid on the input; only cases that the run stored.
    """

    title: str
    seed: Repeat
    samples: str
    parts: dict[str, dict[str, str]]


class Gallery(NamedTuple):
    """The pictures of a study on one data set.

    Attributes:
        cases: columns, anomalous cases first.
        strips: rows.
    """

    cases: list[Case]
    strips: list[Strip]

    @property
    def inputs(self) -> dict[str, str]:
        """The input images: data URI by case id."""
        return {case.id: case.image for case in self.cases}

    @property
    def outlined(self) -> bool:
        """Whether any case has a known lesion."""
        return any(case.outline for case in self.cases)


def gallery(findings: Findings, dataset: str) -> Gallery:
    """Collect the pictures of each row's lowest seed, for the cases that most of these runs stored.

    Args:
        findings: results of the study.
        dataset: name of a data set of the study.

    Examples:
        >>> from anomaly_lab.studies.plan import DataSet, Row, Study
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={"vae": Row("VAE", "vae_toy")})
        >>> gallery(Findings(study, results={}), "set")  # no run is finished yet
        Gallery(cases=[], strips=[])
    """
    first = {row.title: next(iter(runs.items())) for name, row in findings.rows.items()
             if (runs := findings.of(name, dataset))}  # fmt: skip
    return of_runs(first)


def of_runs(first: Mapping[str, tuple[Repeat, Result]]) -> Gallery:
    """Collect the pictures of runs on one data set, for the cases that most of them stored.

    Args:
        first: by title, which repeat a run is, and its results.

    Examples:
        >>> of_runs({})
        Gallery(cases=[], strips=[])
    """
    stored = {title: arrays for title, (_, run) in first.items() if (arrays := _stored(run.run))}
    cases = _choose_cases([(arrays, first[title][1]) for title, arrays in stored.items()])
    strips = [_strip(title, *run, stored.get(title, EMPTY), cases) for title, run in first.items()]
    return Gallery(cases, [strip for strip in strips if strip.samples or strip.parts])


def _stored(run: Path) -> dict[str, np.ndarray]:
    """Return the arrays of gallery.npz; empty if it is missing or damaged, because the page can do without pictures."""
    try:
        return read_gallery(run)
    except UserError:
        return {}


def _choose_cases(runs: list[tuple[dict[str, np.ndarray], Result]]) -> list[Case]:
    """Choose the cases of each class that most runs stored, anomalous cases first."""
    times: Counter[str] = Counter()
    places: dict[str, tuple[bool, dict[str, np.ndarray], int]] = {}
    for stored, result in runs:
        anomalous = dict(zip(result.id.tolist(), (result.label == 1).tolist(), strict=True))
        for i, case in enumerate(stored["id"].tolist() if PARTS & set(stored) else []):
            if case in anomalous:
                times[case] += 1
                places.setdefault(case, (anomalous[case], stored, i))
    ranked = sorted(places, key=lambda case: (-times[case], case))
    chosen = [
        case for label in (True, False) for case in [c for c in ranked if places[c][0] == label][:CASES_PER_CLASS]
    ]
    return [_case(case, *places[case]) for case in chosen]


def _case(case: str, anomalous: bool, stored: dict[str, np.ndarray], i: int) -> Case:
    image = stored["image"][i]
    outline = images.outline(stored["mask"][i, 0]) if "mask" in stored and stored["mask"][i].any() else ""
    return Case(case, anomalous, image, _small(images.shades(image)), outline)


def _strip(title: str, seed: Repeat, result: Result, stored: dict[str, np.ndarray], cases: list[Case]) -> Strip:
    index = {
        case.id: i
        for case in cases
        for i in np.flatnonzero(stored["id"] == case.id)
        if _may_be_equal(stored["image"][i], case.pixels)
    }
    parts: dict[str, dict[str, str]] = {}
    if index and "reconstruction" in stored:
        parts["reconstruction"] = {c: _small(images.shades(stored["reconstruction"][i])) for c, i in index.items()}
    if index and "anomaly_map" in stored:
        image, maps = stored["image"], stored["anomaly_map"][:, 0]
        brightest = float(np.nanquantile(maps, 0.995))  # per method, because maps of two methods do not compare
        parts["anomaly_map"] = {c: _small(images.overlay(image[i], maps[i], brightest)) for c, i in index.items()}
    return Strip(title, seed, _samples(result.run / "samples"), parts)


def _may_be_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two images may show the same patch: two runs may have stored different patches of a case."""
    return a.shape != b.shape or np.array_equal(a, b)


def _samples(folder: Path) -> str:
    """Return the upper rows of the last readable grid of generated images, SIDE images wide, as a data URI."""
    for path in sorted((path for path in folder.glob("*.png") if path.stem.isdigit()), reverse=True):
        try:
            with Image.open(regular(path)) as grid:
                tile = grid.width // SIDE
                return _uri(grid.crop((0, 0, grid.width, min(grid.height, STRIPS * tile))), SIDE * TILE)
        except (OSError, SyntaxError):
            continue  # incomplete, because the run was killed
    return ""


def _small(colours: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    """Encode colours in [0, 1], [H, W, 3], as a data URI of a few kilobytes."""
    return _uri(Image.fromarray((colours * 255).round().astype(np.uint8)), LARGEST)


def _uri(picture: Image.Image, largest: int) -> str:
    picture.thumbnail((largest, largest))
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
