"""anomaly_lab: GAN-based anomaly detection in medical and X-ray images.

Example:
    >>> import anomaly_lab as al
    >>> run = al.train("ganomaly_headct", budget="smoke", data={"source": "twin"})  # doctest: +SKIP
    >>> run.metrics["detector"]["auroc"]["value"]  # doctest: +SKIP
    0.81

The API is imported on first use, so that importing the package is fast.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomaly_lab import detectors as detectors
    from anomaly_lab.api import Run as Run
    from anomaly_lab.api import evaluate as evaluate
    from anomaly_lab.api import experiments as experiments
    from anomaly_lab.api import export as export
    from anomaly_lab.api import predict as predict
    from anomaly_lab.api import quality as quality
    from anomaly_lab.api import resume as resume
    from anomaly_lab.api import show as show
    from anomaly_lab.api import train as train
    from anomaly_lab.data import datasets as datasets
    from anomaly_lab.loading import load as load

# Read when torch is first imported: for how long a thread spins before it sleeps while it waits for others. With GNU
# OpenMP's 300 000 turns, an iteration can take a hundred times as long where other programs run; these are enough where
# none does.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.1.0"
_API = ("Run", "evaluate", "experiments", "export", "predict", "quality", "resume", "show", "train")
_PACKAGES = {"datasets": "anomaly_lab.data.datasets", "detectors": "anomaly_lab.detectors"}
__all__ = ["__version__", "load", *_API, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(import_module("anomaly_lab.api"), name)
    if name == "load":  # an export is scored where torch is not installed, and the API needs it
        return import_module("anomaly_lab.loading").load
    if name in _PACKAGES:
        return import_module(_PACKAGES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "load", *_API, *_PACKAGES])
