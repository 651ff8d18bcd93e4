"""What the folders hold: whoever adds a detector or a data set is asked what all are asked, without being told."""

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from inspect import isabstract
from types import ModuleType
from typing import TypeVar

from anomaly_lab.experiment import config

T = TypeVar("T")


def classes(package: ModuleType, base: type[T]) -> list[type[T]]:
    """Every class below `base` that a module of the package itself defines and that can be made."""
    return [found for found in _defined(package) if issubclass(found, base) and not isabstract(found)]


def _defined(package: ModuleType) -> Iterator[type]:
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not module.ispkg:
            for found in vars(importlib.import_module(module.name)).values():
                if isinstance(found, type) and found.__module__ == module.name:
                    yield found


def experiment_of(section: str, kind: type) -> str:
    """The first experiment, by name, whose section `detector` or `data` names this class.

    The one place of the contracts that knows how experiments are listed.
    """
    for name, _ in config.experiments():
        if _target(section, name) == f"{kind.__module__}.{kind.__qualname__}":
            return name
    raise LookupError(f"no experiment has the {section} {kind.__qualname__}: add one")


@cache
def _target(section: str, name: str) -> str:
    target: str = config.load(name, ["budget=smoke"])[section]["_target_"]
    return target
