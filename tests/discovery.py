"""What the folders hold: whoever adds a detector or a data set is asked what all are asked, without being told."""

import re
from functools import cache
from inspect import Parameter, cleandoc, signature
from typing import TypeVar

from anomaly_lab import catalogue
from anomaly_lab.experiment import compose, config

T = TypeVar("T")
NAMED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)  # not *args, **others


def below(package: str, base: type[T]) -> list[type[T]]:
    """Every class below `base` that a module of the package defines, complete or not.

    One that others derive from says so by an underscore before its name.
    """
    return [kind for kind in catalogue.classes(package).values() if issubclass(kind, base)]


def gaps(kind: type) -> list[str]:
    """What the class must define and does not."""
    return sorted(vars(kind).get("__abstractmethods__", ()))


def undescribed(kind: type) -> list[str]:
    """Arguments of its own constructor without a type, or without a line under `Args:` there or in the class."""
    if "__init__" not in vars(kind):
        return []
    said: set[str] = set()
    for text in (kind.__doc__, vars(kind)["__init__"].__doc__):
        for section in re.findall(r"^Args:\n((?: .*\n?|\n)+)", cleandoc(text or ""), re.MULTILINE):
            said |= {
                name for names in re.findall(r"^ {4}([*\w, ]+):", section, re.M) for name in re.findall(r"\w+", names)
            }
    own = [each for each in signature(vars(kind)["__init__"]).parameters.values() if each.kind in NAMED][1:]
    untyped = [f"{each.name} has no type" for each in own if each.annotation is each.empty]
    return untyped + [f"{each.name} has no line under Args:" for each in own if each.name not in said]


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


def one_of_each_class() -> list[str]:
    """The first detector's experiment of every class: others differ in sizes, lengths and how they are scored."""
    first: dict[str, str] = {}
    for name in compose.detectors():
        layers = [layer.values.get("detector", {}) for layer in compose.layers_of(f"{name}_headct")]
        first.setdefault([values["_target_"] for values in layers if "_target_" in values][-1], name)
    return [*first.values()]


@cache
def _target(section: str, name: str) -> str:
    target: str = config.load(name, ["budget=smoke"])[section]["_target_"]
    return target
