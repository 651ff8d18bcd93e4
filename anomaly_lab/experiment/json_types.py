"""What a JSON file may hold, said by types: a value that is something else is refused by the name of its key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from anomaly_lab.types import constraints


def check(value: Any, kind: Any, key: str = "") -> None:
    """Compare a value of a JSON file with a type: unions, Literal, Annotated, lists, mappings, TypedDict, dataclasses.

    Args:
        value: the value.
        kind: the type. A number must be finite and obey the type's constraints.
        key: dotted key of the value, for messages.

    Raises:
        ValueError: it is something else; the message names the key.

    Examples:
        >>> from typing import TypedDict
        >>> class Threshold(TypedDict, total=False):
        ...     value: float | None
        >>> check({"value": 0.5}, Threshold)
        >>> check({"value": "high"}, Threshold, "threshold")
        Traceback (most recent call last):
        ...
        ValueError: threshold.value is 'high', not a number or null
    """
    if _has_fields(kind):
        hints = _hints(kind)
        _check_mapping(value, hints, key)
        required = kind.__required_keys__ if is_typeddict(kind) else ()
        if missing := [name for name in sorted(required) if name not in value]:
            raise ValueError(f"{_below(key, missing[0])} is missing")
        for name in hints.keys() & value.keys():
            check(value[name], hints[name], _below(key, name))
    elif get_origin(kind) is dict:
        _check_mapping(value, kind, key)
        for name, member in value.items():
            check(member, get_args(kind)[1], _below(key, name))
    elif get_origin(kind) is list and isinstance(value, list):
        for place, member in enumerate(value):
            check(member, get_args(kind)[0], _below(key, str(place)))
    elif get_origin(kind) in (Union, UnionType):
        _check_union(value, get_args(kind), key)
    elif not _is_one(value, kind):
        raise ValueError(f"{key} is {_short(value)}, not {_words(kind)}")


def _has_fields(kind: Any) -> bool:
    return is_typeddict(kind) or is_dataclass(kind)


def _check_union(value: Any, kinds: tuple[Any, ...], key: str) -> None:
    """The value must be of one of the types; a mapping or list is compared with the one that is such."""
    containers = [
        kind
        for kind in kinds
        if (isinstance(value, dict) and (_has_fields(kind) or get_origin(kind) is dict))
        or (isinstance(value, list) and get_origin(kind) is list)
    ]
    if containers:
        check(value, containers[0], key)
    elif not any(_is_one(value, kind) for kind in kinds):
        raise ValueError(f"{key} is {_short(value)}, not {' or '.join(map(_words, kinds))}")


def _check_mapping(value: Any, kind: Any, key: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} is {_short(value)}, not a mapping")


def _is_one(value: Any, kind: Any) -> bool:
    """Whether a value is of a type that is no mapping and no list of a known type."""
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return any(value == allowed and type(value) is type(allowed) for allowed in get_args(kind))
    if get_origin(kind) is Annotated:
        return _is_one(value, get_args(kind)[0]) and all(limit.admits(value) for limit in constraints(kind))
    if kind in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        return whole or (kind is float and isinstance(value, float) and math.isfinite(value))
    if get_origin(kind) is not None or _has_fields(kind):
        return False
    return value is None if kind is type(None) else isinstance(value, kind)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:36]}…"


def _words(kind: Any) -> str:
    """A type in words."""
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    if kind in plain:
        return plain[kind]
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_origin(kind) is Annotated:
        return " and ".join(map(str, constraints(kind)))
    return "a list" if get_origin(kind) is list else "a mapping"
