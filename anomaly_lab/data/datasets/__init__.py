"""Data sets, one module each: their files, patients and labels.

The classes are attributes of the package: `datasets.Folder`, `datasets.HeadCT`.
"""

from anomaly_lab import catalogue


def __getattr__(name: str) -> type:
    return catalogue.find(__name__, name)


def __dir__() -> list[str]:
    return sorted(catalogue.classes(__name__))
