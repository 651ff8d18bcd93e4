"""What the folders hold: whoever adds a detector or a data set is asked what all are asked, without being told."""

from functools import cache
from inspect import isabstract
from typing import TypeVar

from anomaly_lab import catalogue
from anomaly_lab.experiment import compose, config

T = TypeVar("T")


def concrete(package: str, base: type[T]) -> list[type[T]]:
    """Every class below `base` that a module of the package defines and that can be made."""
    found = catalogue.classes(package).values()
    return [kind for kind in found if issubclass(kind, base) and not isabstract(kind)]


def experiment_of(section: str, kind: type) -> str:
    """The first experiment, by name, whose section `detector` or `data` names this class.

    The one place of the contracts that knows how experiments are listed.
    """
    names = [f"{n}_headct" for n in compose.detectors()] if section == "detector" else []
    for name in names or [f"kde_{n}" for n in compose.datasets()]:
        if _target(section, name) == f"{kind.__module__}.{kind.__qualname__}":
            return name
    raise LookupError(f"no experiment has the {section} {kind.__qualname__}: add one")


@cache
def _target(section: str, name: str) -> str:
    target: str = config.load(name, ["budget=smoke"])[section]["_target_"]
    return target
