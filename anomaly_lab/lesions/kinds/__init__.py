"""Kinds of lesions, one a file. Their classes are attributes of the package.

Example:
    >>> from anomaly_lab.lesions import kinds
    >>> kinds.Disc.__module__
    'anomaly_lab.lesions.kinds.disc'
"""

from anomaly_lab import catalogue


def __getattr__(name: str) -> type:
    return catalogue.find(__name__, name)


def __dir__() -> list[str]:
    return sorted(catalogue.classes(__name__))
