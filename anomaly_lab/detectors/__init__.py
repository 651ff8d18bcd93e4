"""Detectors, one file per method. Their classes are attributes of the package.

Example:
    >>> from anomaly_lab import detectors
    >>> detectors.GANomaly.__module__
    'anomaly_lab.detectors.ganomaly'
"""

from anomaly_lab import catalogue


def __getattr__(name: str) -> type:
    return catalogue.find(__name__, name)


def __dir__() -> list[str]:
    return sorted(catalogue.classes(__name__))
