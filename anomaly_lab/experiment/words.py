"""A command's own settings among the words of its command line; all other words go to the experiment or the run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any, TypeVar, cast

from omegaconf import OmegaConf

from anomaly_lab.experiment.record import check
from anomaly_lab.experiment.schema import merged, to_object, types_of
from anomaly_lab.experiment.typed import read_tree, tree_of
from anomaly_lab.types import UserError

Settings = TypeVar("Settings")


def own_settings(
    kind: type[Settings], words: Sequence[str], sections: Collection[str] = ()
) -> tuple[Settings, list[str]]:
    """Split words `key=value` into the settings of a command and the others.

    Args:
        kind: a dataclass with the settings, their types, ranges and defaults.
        words: of the command line.
        sections: settings that are mappings, whose keys follow a dot.

    Returns:
        The settings, and the words that are none of them, in their order.

    Raises:
        UserError: a setting cannot have such a value.

    Examples:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Own:
        ...     jobs: int = 1
        >>> own_settings(Own, ["jobs=2", "data.root=scans"])
        (Own(jobs=2), ['data.root=scans'])
    """
    names: Collection[str] = cast("Any", kind).__dataclass_fields__

    def is_own(word: str) -> bool:
        key, dot, _ = word.partition("=")[0].partition(".")
        return key in names and (not dot or key in sections)

    tree, _ = tree_of([word for word in words if is_own(word)])
    found = to_object(merged(OmegaConf.structured(kind), read_tree(tree, types_of(kind))))
    try:
        check(asdict(cast("Any", found)), cast("Any", kind))
    except ValueError as error:
        raise UserError(str(error)) from error
    return cast("Settings", found), [word for word in words if not is_own(word)]
