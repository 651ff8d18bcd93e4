"""Which classes the sections of an experiment may name, so that a YAML file from elsewhere cannot run code.

A section may name a class of this package, and beyond it what Lightning has to offer for it: its Trainer, and those
of its callbacks that take neither a path nor a function. Classes of other packages need the user's word, given by
`--trust PACKAGE` or ANOMALY_TRUST. Where a file lies confers no trust: the file is the threat. The package is checked
before anything of it is imported, the base class after.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_origin

from anomaly_lab.types import UserError

ENVIRONMENT = "ANOMALY_TRUST"  # variable with the trusted packages, separated by commas; `--trust` adds to it
OWN, LIGHTNING = "anomaly_lab", "pytorch_lightning"
BASES = {  # base class of what a section may name
    "data": "anomaly_lab.data.datamodule.PatchDataModule",
    "detector": "anomaly_lab.detectors.families.detector.Detector",
    "trainer": "pytorch_lightning.Trainer",
    "callbacks": "pytorch_lightning.Callback",
}


def packages() -> tuple[str, ...]:
    """Return the packages that the user trusts beside this one.

    Examples:
        >>> with trusting("mygan, mydata"):
        ...     packages()
        ('mygan', 'mydata')
    """
    return tuple(name for word in os.environ.get(ENVIRONMENT, "").split(",") if (name := word.strip()))


@contextmanager
def trusting(names: str | Sequence[str]) -> Iterator[None]:
    """Trust further packages inside the block, and in processes that are started in it.

    Args:
        names: dotted names of packages or modules; a string may have several, separated by commas.

    Raises:
        UserError: one is no such name.

    Examples:
        >>> with trusting(["mygan"]):
        ...     refuse_package("mygan.nets.Net", "detector")
        >>> refuse_package("mygan.nets.Net", "detector")
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: detector._target_: mygan.nets.Net is not of anomaly_lab, so it was not...
    """
    before = os.environ.get(ENVIRONMENT)
    trust(names)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(ENVIRONMENT, None)
        else:
            os.environ[ENVIRONMENT] = before


def trust(names: str | Sequence[str]) -> None:
    """Trust further packages from now on, in this process and those that it starts; see `trusting`."""
    words = [word.strip() for name in ([names] if isinstance(names, str) else names) for word in name.split(",")]
    for word in words:
        if not all(part.isidentifier() for part in word.split(".")):
            raise UserError(f"--trust {word}: takes the name of a package, such as --trust mygan")
    if words:
        os.environ[ENVIRONMENT] = ",".join(dict.fromkeys([*packages(), *words]))


def refuse_package(path: str, section: str = "") -> None:
    """Refuse a class of a package that is not trusted; imports nothing.

    Args:
        path: dotted path of the class.
        section: dotted name of the section that names it, such as "callbacks.health"; empty for any.

    Raises:
        UserError: the package is not trusted; says how to trust it.
    """
    if not _lies_in(path, OWN, LIGHTNING, *packages()):
        package = path.partition(".")[0]
        raise UserError(
            f"{_named(section)}{path} is not of anomaly_lab, so it was not imported; if you trust the code of "
            f"{package}, say --trust {package} (make: TRUST={package}, Python: trust={package!r})"
        )


def refuse_class(kind: type, path: str, section: str = "") -> None:
    """Refuse a class that has not the section's base class, or one of Lightning that reaches out of the run folder.

    Args:
        kind: the class.
        path: the dotted path by which it was found.
        section: dotted name of the section that names it; empty for any.

    Raises:
        UserError: the class is none that this section may name.

    Examples:
        >>> from pytorch_lightning.callbacks import ModelCheckpoint, Timer
        >>> refuse_class(Timer, "pytorch_lightning.callbacks.Timer", "callbacks.timer")
        >>> refuse_class(ModelCheckpoint, "pytorch_lightning.callbacks.ModelCheckpoint", "callbacks.best")
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: callbacks.best._target_: ...ModelCheckpoint takes a path or a function (dirpath)...
    """
    bases = BASES.values() if not section else [BASES[section.partition(".")[0]]]
    if not any(issubclass(kind, _found(base)) for base in bases):
        expected = " or ".join(base.rpartition(".")[2] for base in bases)
        raise UserError(f"{_named(section)}{path} is not a subclass of {expected}, so it cannot stand here")
    if _lies_in(path, *packages()):
        return
    refuse_package(f"{kind.__module__}.{kind.__qualname__}", section)  # it may have been imported there from elsewhere
    if not _lies_in(kind.__module__, LIGHTNING) or issubclass(kind, _found(BASES["trainer"])):
        return
    signature = inspect.signature(kind, eval_str=True)
    if reaching := [p.name for p in signature.parameters.values() if _reaches_out(p.annotation)]:
        raise UserError(
            f"{_named(section)}{path} takes a path or a function ({', '.join(reaching[:3])}), which a file must not "
            f"give; derive a callback from it in a package of yours and trust that"
        )


def _lies_in(path: str, *names: str) -> bool:
    return any(f"{path}.".startswith(f"{name}.") for name in names)


def _named(section: str) -> str:
    return f"{section}._target_: " if section else ""


def _found(base: str) -> type:
    module, _, name = base.rpartition(".")
    found: type = getattr(importlib.import_module(module), name)
    return found


def _reaches_out(annotation: Any) -> bool:
    """Return whether a type, or a member of a union or list, is a path or a function."""
    if annotation is Path or annotation is Callable or get_origin(annotation) is Callable:
        return True
    return any(_reaches_out(member) for member in get_args(annotation))
