"""The page on new files: all scores, and pictures of the most anomalous files with anomaly maps and known lesions."""

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

CASES_WITH_PICTURES = 40  # the cases with the highest scores get pictures
SPARE = 40  # further cases that keep their pictures during scoring, so that sorting is rare
SLICES = 5  # shown of a volume, besides the slice with the largest part of a known lesion
APART = 20  # shown slices are at least 1/APART of the volume apart, because neighbours look alike
NO_NORMALS = Banner(
    "note",
    "No validation normals",
    "The run has none, so there is no threshold and no p-value. A map made from scores then compares a scan only with "
    "itself: 0 is its least anomalous window, 1 its most anomalous one.",
)


class View(NamedTuple):
    """A picture of a case.

    Attributes:
        title: which slice of a volume; empty for an image.
        image: [C, H, W] in [-1, 1].
        anomaly_map: [H, W].
        mask: known lesion, bool [H, W], or None.
    """

    title: str
    image: NDArray[np.floating[Any]]
    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Finding:
    """Result for a new file.

    Attributes:
        id: path below the folder.
        score: raw score; higher = more anomalous.
        p_value: fraction of validation normals that look at least as unusual; None without validation normals.
        called: whether the score exceeds the threshold; None without a threshold.
        auroc: pixel AUROC of the map against the known lesion, within the foreground; NaN without a lesion.
        views: pictures; empty where the detector has no map.

    Examples:
        >>> finding = Finding("patient1/head.nii.gz", score=0.8, p_value=0.05, called=True)
        >>> finding.has_lesion  # no mask was given
        False
    """

    id: str
    score: float
    p_value: float | None
    called: bool | None
    auroc: float = math.nan
    views: tuple[View, ...] = ()

    @property
    def has_lesion(self) -> bool:
        """Whether the file has a known lesion."""
        return not math.isnan(self.auroc)


def views(
    image: NDArray[np.floating[Any]],
    anomaly_map: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    axis: int = 0,
) -> tuple[View, ...]:
    """Choose the pictures of a case: the whole image, or the slices of a volume with the highest map values, in order.

    Args:
        image: [C, *S] in [-1, 1].
        anomaly_map: [*S].
        mask: known lesion, bool [*S], or None.
        axis: axis of a volume that its slices are perpendicular to.

    Examples:
        >>> anomaly_map = np.zeros((10, 4, 4), np.float32)
        >>> anomaly_map[3] = 1.0  # a volume of ten slices, of which the fourth is conspicuous
        >>> [view.title for view in views(np.zeros((1, 10, 4, 4)), anomaly_map, mask=None)]
        ['slice 4 of 10']
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
    """Drop pictures that the page will not show, to save memory while scoring many files.

    Args:
        findings: of all files scored so far.

    Returns:
        The same findings; if more than CASES_WITH_PICTURES + SPARE have pictures, only the highest scores keep them.

    Examples:
        >>> view = View("", np.zeros((1, 4, 4)), np.zeros((4, 4), np.float32), None)
        >>> many = [Finding(str(i), float(i), None, None, views=(view,)) for i in range(100)]
        >>> sum(bool(finding.views) for finding in lean(many))
        40
    """
    with_views = sorted((finding for finding in findings if finding.views), key=lambda finding: -finding.score)
    if len(with_views) <= CASES_WITH_PICTURES + SPARE:
        return findings
    kept = {finding.id for finding in with_views[:CASES_WITH_PICTURES]}
    return [finding if finding.id in kept else replace(finding, views=()) for finding in findings]


def write_page(path: Path, run: str, findings: Sequence[Finding], banners: Sequence[Banner] = ()) -> None:
    """Write the page: a table of all files, and pictures of those with the highest scores.

    Args:
        path: of the HTML file.
        run: name of the run whose detector scored the files.
        findings: of all files, at least one.
        banners: notices at the top.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = Path(folder) / "index.html"
        ...     write_page(page, "fanogan_headct/1", [Finding("a.png", 0.8, 0.05, called=True)])
        ...     "1 file, 1 above the threshold" in page.read_text()
        True
    """
    ordered = sorted(findings, key=lambda finding: -finding.score)
    shown = [finding for finding in ordered if finding.views][:CASES_WITH_PICTURES]
    maps = [view.anomaly_map.ravel() for finding in shown for view in finding.views]
    brightest = float(np.nanquantile(np.concatenate(maps), 0.995)) if maps else 1.0
    page = html.environment(rate=rate).get_template("prediction_page.html.j2")
    heat_bar = images.data_uri(images.heat(np.linspace(0, 1, 64)[None].repeat(4, axis=0)))
    cases = [(finding, list(_pictures(finding, brightest))) for finding in shown]
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
    """Return the slices with the highest values, at most SLICES and none close to another."""
    chosen: list[int] = []
    for i in np.argsort(-heat, kind="stable").tolist():
        if heat[i] > 0 and all(abs(i - other) * APART >= len(heat) for other in chosen):
            chosen.append(i)
    return set(itertools.islice(chosen, SLICES))


def _pictures(finding: Finding, brightest: float) -> Iterator[dict[str, Any]]:
    """Yield the views of a finding as the template needs them."""
    for view in finding.views:
        yield {
            "title": view.title,
            "size": view.anomaly_map.shape,
            "image": images.data_uri(images.shades(view.image)),
            "overlay": images.data_uri(images.overlay(view.image, view.anomaly_map, brightest)),
            "outline": "" if view.mask is None else images.outline(view.mask),
        }
