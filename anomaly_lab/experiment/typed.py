"""What is written after `=` on a command line is read by the type of the setting that it is meant for.

A setting that holds text has it as it was typed: `2024_01`, `07`, `no`, `12:30:00` and `cohort #2` are names of folders
and classes, of which YAML 1.1 would make other things. Numbers are Python's, so that `12:30` is none.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from anomaly_lab.experiment.compose import Tree, nested, overlaid, refuse_bomb
from anomaly_lab.experiment.schema import in_current_keys, types_below
from anomaly_lab.types import UserError

_NOTHING = ("", "~", "null")
_TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NAME = re.compile(r"[+-]?0\d|.*_|\D*$")  # 007, 2024_01 and nan, where no type says that a number is meant
_TEXTS, _LISTS = {str, Path}, {list, tuple, Sequence}


@dataclass(frozen=True)
class Typed:
    """A text whose meaning depends on the type of its setting."""

    text: str


def tree_of(words: Sequence[str]) -> tuple[Tree, dict[str, str]]:
    """Return words `key=value` as a tree with current keys, whose values are not read yet; later words override.

    Args:
        words: of the command line. A value in braces is a section.

    Returns:
        The tree, and the current name of each deprecated key.

    Examples:
        >>> tree_of(["data.root=cohort #2", "data={twin_size: 07}"])[0]
        {'data': {'root': Typed(text='cohort #2'), 'twin': {'size': Typed(text='07')}}}
    """
    tree: Tree = {}
    used: dict[str, str] = {}
    for word in words:
        key, _, text = word.partition("=")
        current, old = in_current_keys(nested({key: _sections(text)}))
        tree, used = overlaid(tree, current), used | old
    return tree, used


def read_tree(tree: Mapping[str, Any], types: Mapping[str, Any], prefix: str = "") -> Tree:
    """Read all values of a tree by the types of their settings; those of unknown settings as YAML has it, nearly.

    Args:
        tree: as `tree_of` returns it.
        types: of its keys; a mapping has those of the keys below.
        prefix: prefix of the keys in messages, such as "data.".

    Raises:
        UserError: a list or a section is not closed.

    Examples:
        >>> types = {"root": str, "normal": tuple[str, ...], "seed": int}
        >>> read_tree(tree_of(["root=2024_01", "normal=[no, 07]", "seed=1e3"])[0], types)
        {'root': '2024_01', 'normal': ['no', '07'], 'seed': 1000.0}
    """
    found: Tree = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            kind = types.get(key, Any)
            inner = kind if isinstance(kind, Mapping) else types_below(kind, value)
            found[key] = read_tree(value, inner, f"{prefix}{key}.")
            continue
        try:
            found[key] = read(value.text, types.get(key, Any)) if isinstance(value, Typed) else value
        except yaml.YAMLError as error:
            raise UserError(f"'{prefix}{key}={value.text}': the text after '=' is not valid YAML") from error
    return found


def read(text: str, kind: Any) -> Any:
    """Read a text by a type.

    Raises:
        YAMLError: a list or a section is not closed, or something follows it.

    Examples:
        >>> [read("no", kind) for kind in (str, bool, int | str, Any)]
        ['no', False, 'no', False]
        >>> read("null", str | None), read("null", str), read("12:30", int), read("010", int)
        (None, 'null', '12:30', 10)
    """
    alternatives = _alternatives(kind)
    kinds = {get_origin(each) or each for each in alternatives}
    bare, texts = text.strip().lower(), kinds & _TEXTS
    if not bare or (bare in _NOTHING and (type(None) in kinds or not texts)):
        return None
    if (quoted := _quoted(text)) is not None:
        return _at_home(quoted)
    if text.startswith("[") and (kinds & _LISTS or not texts):
        inner = next((get_args(each) for each in alternatives if get_origin(each) in _LISTS), (Any,))
        inner = tuple(each for each in inner if each is not Ellipsis)
        return [read(part, inner[min(i, len(inner) - 1)]) for i, part in enumerate(_parts(text).values())]
    if text.startswith("{") and not texts:
        return {key: read(part, Any) for key, part in _parts(text).items()}
    if (bool in kinds or Any in kinds) and bare in _TRUTHS:
        return _TRUTHS[bare]
    if kinds & {bool, int, float} or not (texts or _NAME.match(bare)):
        for number in (int, float):
            with contextlib.suppress(ValueError):
                return number(text)
    return _at_home(text)


def _alternatives(kind: Any) -> list[Any]:
    """Return the members of a type without constraints; Any stands for what has no type."""
    if hasattr(kind, "__metadata__"):
        return _alternatives(kind.__origin__)
    if get_origin(kind) in (Union, UnionType):
        return [member for each in get_args(kind) for member in _alternatives(each)]
    if get_origin(kind) is Literal:
        return [type(value) for value in get_args(kind)]
    return [Any if kind in (Parameter.empty, object) else kind]


def _sections(text: str) -> Any:
    """Return the sections that a text in braces holds, or what stands for any other text."""
    if not text.startswith("{"):
        return Typed(text)
    try:
        return {key: _sections(part) for key, part in _parts(text).items()}
    except yaml.YAMLError:
        return Typed(text)  # the name of a folder, or refused when it is read


def _parts(text: str) -> dict[str, str]:
    """Return the texts of the members of a list, by number, or of a section, by key.

    Raises:
        YAMLError: the text is neither.
    """
    refuse_bomb(text)
    node = yaml.compose(text, Loader=yaml.SafeLoader)  # its nodes know where they stand in the text
    if isinstance(node, yaml.SequenceNode):
        members = [(str(i), member) for i, member in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        members = [(str(key.value), member) for key, member in node.value]
    else:
        raise yaml.YAMLError("neither a list nor a section")
    return {key: text[member.start_mark.index : member.end_mark.index] for key, member in members}


def _quoted(text: str) -> str | None:
    """Return what stands in quotes, if all of the text does."""
    if text[0] not in "\"'":
        return None
    with contextlib.suppress(ValueError):
        return str(json.loads(text))  # what programs write; YAML does not know their surrogate pairs
    with contextlib.suppress(yaml.YAMLError):
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if isinstance(node, yaml.ScalarNode) and node.style and node.end_mark.index == len(text.rstrip()):
            return str(node.value)
    return None


def _at_home(text: str) -> str:
    """Return a path below the home folder as the shell would have it, which leaves what follows a `=` alone."""
    return str(Path(text).expanduser()) if text.startswith("~/") else text
