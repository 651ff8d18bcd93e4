"""Find the public classes of a package by importing its modules, so that no list has to be maintained."""

from __future__ import annotations

import importlib
import pkgutil


def classes(package: str) -> dict[str, type]:
    """Return the public classes that the modules of a package define, by name.

    Imports all modules of the package; sub-packages are ignored. A class that only serves as a base of others is not
    public: its name begins with an underscore.

    Examples:
        >>> "GANomaly" in classes("anomaly_lab.detectors")
        True
    """
    public: dict[str, type] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if not module.ispkg:
            members = vars(importlib.import_module(module.name)).items()
            public |= {name: value for name, value in members if _is_public(name, value, module.name)}
    return public


def find(package: str, name: str) -> type:
    """Return a class of a package by name; for the package's `__getattr__`.

    Args:
        package: dotted name of the package.
        name: name of the class.

    Raises:
        AttributeError: the package has no such class.

    Examples:
        >>> find("anomaly_lab.detectors", "GANomaly").__module__
        'anomaly_lab.detectors.ganomaly'
    """
    if not name.startswith("_") and name in (known := classes(package)):
        return known[name]
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


def _is_public(name: str, value: object, module: str) -> bool:
    return isinstance(value, type) and not name.startswith("_") and value.__module__ == module
