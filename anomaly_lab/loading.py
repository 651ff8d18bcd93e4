"""Load what scores new scans: a run folder with torch, or an export without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anomaly_lab.runtime import description
from anomaly_lab.types import UserError

if TYPE_CHECKING:
    from anomaly_lab.api import Run
    from anomaly_lab.pipeline.scorer import Scorer
    from anomaly_lab.runtime.scorer import ExportScorer


def load(source: str | Path | Run, *, trust: str | Sequence[str] = ()) -> Scorer | ExportScorer:
    """Load a trained run, or an export of one, to score new scans; the training data are not needed.

    Args:
        source: a run or its folder; or an export: its folder, its model or its export.json. An export is loaded without
            torch, and runs no code of its maker.
        trust: packages beside anomaly_lab whose classes a run may name.

    Raises:
        UserError: it is neither; the run is not trained far enough or not evaluated; or a file of the export is
            damaged.

    Examples:
        >>> load("runs/ganomaly_headct/20260101-120000-laptop-1a2b").score("slice.png").is_anomalous  # doctest: +SKIP
        True
        >>> load("export").score(np.zeros((64, 64), np.uint8)).p_value  # doctest: +SKIP
        0.1
    """
    if isinstance(source, str | Path) and description.place(source) is not None:
        from anomaly_lab.runtime.scorer import ExportScorer

        return ExportScorer.open(source)
    try:
        from anomaly_lab import api
    except ModuleNotFoundError as error:  # an environment for exports alone
        raise UserError(
            f"{source} is no export, and a run needs the package {error.name}: pip install anomaly_lab"
        ) from error
    return api.load(source, trust=trust)
