"""What the folders hold: whoever adds a detector or a data set is asked what all are asked, without being told."""

from functools import cache
from typing import TypeVar

from anomaly_lab import catalogue
from anomaly_lab.experiment import compose, config

T = TypeVar("T")


def below(package: str, base: type[T]) -> list[type[T]]:
    """Every class below `base` that a module of the package defines, complete or not.

    One that others derive from says so by an underscore before its name.
    """
    return [kind for kind in catalogue.classes(package).values() if issubclass(kind, base)]


def gaps(kind: type) -> list[str]:
    """What the class must define and does not."""
    return sorted(vars(kind).get("__abstractmethods__", ()))


def experiment_of(section: str, kind: type) -> str:
    """The first experiment, by name, whose section `detector` or `data` names this class.

    The one place of the contracts that knows how experiments are listed.
    """
    names = [f"{n}_headct" for n in compose.detectors()] if section == "detector" else []
    for name in names or [f"kde_{n}" for n in compose.datasets()]:
        if _target(section, name) == f"{kind.__module__}.{kind.__qualname__}":
            return name
    folder = compose.DETECTORS if section == "detector" else compose.DATASETS
    path, target = f"experiments/{folder}/<name>.yaml", f"{kind.__module__}.{kind.__qualname__}"
    raise LookupError(f"no experiment has {kind.__qualname__}: add {path} with {section}: {{_target_: {target}}}")


@cache
def _target(section: str, name: str) -> str:
    target: str = config.load(name, ["budget=smoke"])[section]["_target_"]
    return target
