"""The page of new files: the most anomalous of them, whole, with their maps over them and known lesions outlined."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.reports import html, images
from anomaly_lab.reports.charts import rate
from anomaly_lab.reports.html import Banner

CASES_WITH_PICTURES = 40  # cases with pictures: the highest scores
SPARE = 40  # more are kept while scoring, so that not every new one is sorted in
SLICES = 5  # of a volume, besides the one with most of a known lesion
APART = 20  # a volume's slices are shown at least this fraction of it apart: neighbours look alike
NO_NORMALS = Banner(
    "note",
    "No held-out normals",
    "The run kept none, so there is no threshold and no p-value, and a map of scores compares a scan with itself: "
    "0 is its least anomalous window, 1 its most anomalous one.",
)


class View(NamedTuple):
    """A picture of a case: image [C, H, W] in [-1, 1], its map [H, W] and the lesion bool [H, W], where known."""

    title: str
    image: NDArray[np.floating[Any]]
    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Finding:
    """What is said of a new file.

    Attributes:
        id: path below the folder.
        score: raw.
        p_value: share of held-out normals that look at least as unusual, None without any.
        called: whether it lies above the threshold, None without one.
        auroc: of the map's pixels in the foreground against the known lesion; nan where there is none.
        views: nothing where the detector has no map.
    """

    id: str
    score: float
    p_value: float | None
    called: bool | None
    auroc: float = math.nan
    views: tuple[View, ...] = ()

    @property
    def has_lesion(self) -> bool:
        """Whether something is known to be found."""
        return not math.isnan(self.auroc)


def views(
    image: NDArray[np.floating[Any]],
    anomaly_map: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    axis: int = 0,
) -> tuple[View, ...]:
    """A picture whole; of a volume the slices of the hottest voxels, in their order.

    Args:
        image: [C, *S] in [-1, 1].
        anomaly_map: [*S].
        mask: [*S] or None.
        axis: of a volume, across which its slices lie.
    """
    if anomaly_map.ndim == 2:
        return (View("", image, anomaly_map, mask),)
    image, anomaly_map = np.moveaxis(image, axis + 1, 1), np.moveaxis(anomaly_map, axis, 0)
    mask = None if mask is None else np.moveaxis(mask, axis, 0)
    chosen = _hottest(anomaly_map.max((1, 2)))
    if mask is not None and mask.any():
        chosen.add(int(mask.sum((1, 2)).argmax()))
    return tuple(
        View(f"slice {i + 1} of {len(anomaly_map)}", image[:, i], anomaly_map[i], None if mask is None else mask[i])
        for i in sorted(chosen)
    )


def lean(findings: list[Finding]) -> list[Finding]:
    """The same findings; of many, only those that the page will show keep their pictures."""
    seen = sorted((finding for finding in findings if finding.views), key=lambda finding: -finding.score)
    if len(seen) <= CASES_WITH_PICTURES + SPARE:
        return findings
    kept = {finding.id for finding in seen[:CASES_WITH_PICTURES]}
    return [finding if finding.id in kept else replace(finding, views=()) for finding in findings]


def write_page(path: Path, run: str, findings: Sequence[Finding], banners: Sequence[Banner] = ()) -> None:
    """Write index.html: every case in a table, the highest scores with pictures.

    Args:
        path: of the file.
        run: name of the run that scored.
        findings: of all files.
        banners: above them.
    """
    ordered = sorted(findings, key=lambda finding: -finding.score)
    shown = [finding for finding in ordered if finding.views][:CASES_WITH_PICTURES]
    maps = [view.anomaly_map.ravel() for finding in shown for view in finding.views]
    brightest = float(np.nanquantile(np.concatenate(maps), 0.995)) if maps else 1.0
    page = html.environment(rate=rate).get_template("prediction_page.html.j2")
    heat_bar = images.data_uri(images.heat(np.linspace(0, 1, 64)[None].repeat(4, axis=0)))
    cases = [(finding, list(_hung(finding, brightest))) for finding in shown]
    write_atomic(
        path,
        page.render(
            run=run,
            findings=ordered,
            cases=cases,
            outlined=any(finding.has_lesion for finding in shown),
            banners=banners,
            heat_bar=heat_bar,
        ),
    )


def _hottest(heat: NDArray[np.float32]) -> set[int]:
    """The slices with the highest values, none beside another."""
    chosen: list[int] = []
    for i in np.argsort(-heat, kind="stable").tolist():
        if heat[i] > 0 and all(abs(i - other) * APART >= len(heat) for other in chosen):
            chosen.append(i)
    return set(itertools.islice(chosen, SLICES))


def _hung(finding: Finding, brightest: float) -> Iterator[dict[str, Any]]:
    for view in finding.views:
        yield {
            "title": view.title,
            "size": view.anomaly_map.shape,
            "image": images.data_uri(images.shades(view.image)),
            "overlay": images.data_uri(images.overlay(view.image, view.anomaly_map, brightest)),
            "outline": "" if view.mask is None else images.outline(view.mask),
        }
