"""What stands in quality.json of a run folder: how good the images are that a detector draws and reconstructs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from anomaly_lab.experiment.record import Name, Number, Whole, check
from anomaly_lab.experiment.run_folder import read_json
from anomaly_lab.types import UserError

FILE = "quality.json"


class Estimate(TypedDict):
    """A number and its standard error."""

    value: Number
    error: Number


class Spread(TypedDict):
    """Mean and standard deviation over images."""

    mean: Number
    deviation: Number


class Features(TypedDict):
    """The classifier in whose features images are compared."""

    network: str
    weights: str
    sha256: Name
    side: Whole


class Drawn(TypedDict):
    """A set of images against held-out normals."""

    images: Whole
    kid: Estimate
    fid: Number
    precision: Number
    recall: Number


class Reconstructed(TypedDict):
    """Held-out normals against their reconstructions."""

    images: Whole
    ssim: Spread
    perceptual: Spread


class Quality(TypedDict):
    """quality.json."""

    measured: str
    checkpoint: str
    seed: Whole
    features: Features
    held_out: Whole
    changes: Name
    generated: Drawn | None
    training: Drawn | None
    reconstructed: Reconstructed | None


def read_quality(run: Path) -> dict[str, Any]:
    """Read quality.json of a run folder; empty where there is none.

    Raises:
        UserError: the file is damaged.

    Examples:
        >>> read_quality(Path("no such run"))
        {}
    """
    path, remedy = run / FILE, f"write it again: make quality RUN={run}"
    content = read_json(path, remedy)
    try:
        if content:
            check(content, Quality)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}") from error
    return content
