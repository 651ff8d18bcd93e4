"""Finds the classes of a package by reading its modules, so that a new one is known without a list being edited."""

from __future__ import annotations

import importlib
import pkgutil


def classes(package: str) -> dict[str, type]:
    """Public classes that the modules of a package define, by name; imports them all, sub-packages left out.

    Example:
        >>> "GANomaly" in classes("anomaly_lab.detectors")
        True
    """
    found: dict[str, type] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if not module.ispkg:
            members = vars(importlib.import_module(module.name)).items()
            found |= {name: kind for name, kind in members if _is_public(name, kind) and kind.__module__ == module.name}
    return found


def find(package: str, name: str) -> type:
    """The class of that name; for a package's `__getattr__`.

    Raises:
        AttributeError: the package has none.
    """
    if not name.startswith("_") and name in (known := classes(package)):
        return known[name]
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


def _is_public(name: str, value: object) -> bool:
    return isinstance(value, type) and not name.startswith("_")
