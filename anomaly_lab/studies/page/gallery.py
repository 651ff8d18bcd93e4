"""The pictures of a study, from the records of its runs: what was generated, and what was made of the same cases."""

from __future__ import annotations

import base64
import io
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from anomaly_lab.reports import images
from anomaly_lab.studies.findings import Findings
from anomaly_lab.studies.results import Result

CASES_PER_CLASS = 3  # cases of a class
PARTS = {"reconstruction", "anomaly_map"}  # what a run may have made of a case
LARGEST = 96  # pixels a side of a picture: a page holds a dozen for every row
SIDE = 8  # samples a row, as the callback draws them
STRIPS = 2  # rows of samples
EMPTY = {"id": np.empty(0, str)}


class Case(NamedTuple):
    """A column of the gallery.

    Attributes:
        id: of the test case.
        anomalous: what it is.
        pixels: [C, H, W] in [-1, 1].
        image: the same as a data URI.
        outline: SVG path of the lesion in pixels, "" where none is known.
    """

    id: str
    anomalous: bool
    pixels: np.ndarray
    image: str
    outline: str


class Strip(NamedTuple):
    """A row of the gallery.

    Attributes:
        title: of the study's row.
        seed: of the run.
        samples: data URI of what its generator drew last, "" where it draws nothing.
        parts: of PARTS -> data URI by case id, the map laid over the input; without cases that the run did not keep.
    """

    title: str
    seed: int
    samples: str
    parts: dict[str, dict[str, str]]


class Gallery(NamedTuple):
    """The pictures of a data set."""

    cases: list[Case]
    strips: list[Strip]

    @property
    def inputs(self) -> dict[str, str]:
        """What was judged: data URI by case id."""
        return {case.id: case.image for case in self.cases}

    @property
    def outlined(self) -> bool:
        """Whether a lesion is."""
        return any(case.outline for case in self.cases)


def gallery(findings: Findings, dataset: str) -> Gallery:
    """The pictures of each row's lowest seed, of the cases that most of these runs have kept."""
    first = {row.title: next(iter(runs.items())) for name, row in findings.rows.items()
             if (runs := findings.of(name, dataset))}  # fmt: skip
    kept = {title: found for title, (_, run) in first.items() if (found := _kept(run.run))}
    chosen = _chosen([(found, first[title][1]) for title, found in kept.items()])
    strips = [_strip(title, *of, kept.get(title, EMPTY), chosen) for title, of in first.items()]
    return Gallery(chosen, [strip for strip in strips if strip.samples or strip.parts])


def _kept(run: Path) -> dict[str, np.ndarray]:
    """The arrays of gallery.npz; none where it is missing or torn: pictures are no reason to withhold the numbers."""
    try:
        with np.load(run / "samples" / "gallery.npz", allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile):
        return {}


def _chosen(runs: list[tuple[dict[str, np.ndarray], Result]]) -> list[Case]:
    """The cases of each class that most runs have kept, the anomalous first."""
    times: Counter[str] = Counter()
    places: dict[str, tuple[bool, dict[str, np.ndarray], int]] = {}
    for kept, result in runs:
        anomalous = dict(zip(result.id.tolist(), (result.label == 1).tolist(), strict=True))
        for i, case in enumerate(kept["id"].tolist() if PARTS & set(kept) else []):
            if case in anomalous:
                times[case] += 1
                places.setdefault(case, (anomalous[case], kept, i))
    ranked = sorted(places, key=lambda case: (-times[case], case))
    chosen = [case for kind in (True, False) for case in [c for c in ranked if places[c][0] == kind][:CASES_PER_CLASS]]
    return [_case(case, *places[case]) for case in chosen]


def _case(case: str, anomalous: bool, kept: dict[str, np.ndarray], i: int) -> Case:
    image = kept["image"][i]
    outline = images.outline(kept["mask"][i, 0]) if "mask" in kept and kept["mask"][i].any() else ""
    return Case(case, anomalous, image, _small(images.shades(image)), outline)


def _strip(title: str, seed: int, result: Result, kept: dict[str, np.ndarray], cases: list[Case]) -> Strip:
    at = {c.id: i for c in cases for i in np.flatnonzero(kept["id"] == c.id) if _alike(kept["image"][i], c.pixels)}
    parts: dict[str, dict[str, str]] = {}
    if at and "reconstruction" in kept:
        parts["reconstruction"] = {c: _small(images.shades(kept["reconstruction"][i])) for c, i in at.items()}
    if at and "anomaly_map" in kept:
        image, maps = kept["image"], kept["anomaly_map"][:, 0]
        brightest = float(np.nanquantile(maps, 0.995))  # of this method: the maps of two do not compare
        parts["anomaly_map"] = {c: _small(images.overlay(image[i], maps[i], brightest)) for c, i in at.items()}
    return Strip(title, seed, _samples(result.run / "samples"), parts)


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether they are one picture, as far as can be told: of a case, two runs may have kept two patches."""
    return one.shape != other.shape or np.array_equal(one, other)


def _samples(folder: Path) -> str:
    """The upper rows of the last grid that can be read, SIDE pictures wide."""
    for path in sorted((path for path in folder.glob("*.png") if path.stem.isdigit()), reverse=True):
        try:
            with Image.open(path) as grid:
                tile = grid.width // SIDE
                return _uri(grid.crop((0, 0, grid.width, min(grid.height, STRIPS * tile))), SIDE * LARGEST)
        except (OSError, SyntaxError):
            continue  # torn by a kill
    return ""


def _small(colours: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    """A picture of colours in [0, 1], [H, W, 3], as a data URI of a few kilobytes."""
    return _uri(Image.fromarray((colours * 255).round().astype(np.uint8)), LARGEST)


def _uri(picture: Image.Image, largest: int) -> str:
    picture.thumbnail((largest, largest))
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
