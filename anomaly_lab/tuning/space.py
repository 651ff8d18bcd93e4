"""The values that a tuning chooses from, as they are written on the command line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import yaml

from anomaly_lab.experiment.typed import read
from anomaly_lab.types import UserError

EXAMPLE = "params='detector.lr=log(1e-5,1e-2) detector.width=choice(16,32)'"
_TERM = re.compile(r"([A-Za-z_][\w.]*)=([a-z]+)\(([^()]*)\)")
_SEPARATOR = re.compile(r"[\s,;]*")


class Suggesting(Protocol):
    """What of an Optuna trial proposes values."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Parameter:
    """A setting and the values that it may take.

    Attributes:
        key: of the setting, such as `detector.lr`.
        kind: one of KINDS.
        values: what stands in the parentheses: two ends, and a step for "int"; or the choices.

    Examples:
        >>> Parameter("detector.lr", "log", (1e-5, 1e-2)).holds(1e-3)
        True
    """

    key: str
    kind: str
    values: tuple[Any, ...]

    def suggest(self, trial: Suggesting) -> Any:
        """Ask a trial for a value."""
        return KINDS[self.kind](trial, self.key, self.values)

    def ends(self) -> tuple[Any, ...]:
        """Return the values that must be allowed for all to be: both ends, or all choices."""
        return self.values if self.kind == "choice" else self.values[:2]

    def holds(self, value: Any) -> bool:
        """Return whether a value is one of them, so that a trial may begin with it."""
        if self.kind == "choice":
            return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in self.values)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high, step = (*self.values, 1)[:3]
        on_grid = self.kind not in ("int", "logint") or (value == int(value) and (value - low) % step == 0)
        return bool(low <= value <= high and on_grid)


KINDS: Mapping[str, Callable[[Suggesting, str, tuple[Any, ...]], Any]] = {
    "uniform": lambda trial, key, values: trial.suggest_float(key, *values),
    "log": lambda trial, key, values: trial.suggest_float(key, *values, log=True),
    "int": lambda trial, key, values: trial.suggest_int(key, *values[:2], step=(*values, 1)[2]),
    "logint": lambda trial, key, values: trial.suggest_int(key, *values, log=True),
    "choice": lambda trial, key, values: trial.suggest_categorical(key, values),
}


def read_space(
    text: str, choice: Callable[[str, str], Any] = lambda key, text: read(text, Any)
) -> tuple[Parameter, ...]:
    """Read `key=kind(values)` terms, separated by blanks.

    Kinds are uniform(low,high), log(low,high), int(low,high[,step]), logint(low,high) and choice(a,b,…).

    Args:
        text: the terms.
        choice: reads a choice for a key, by the type of its setting.

    Raises:
        UserError: a term is none of these, a range is empty or a key is named twice.

    Examples:
        >>> read_space("detector.augment_d=choice(none,ada)")
        (Parameter(key='detector.augment_d', kind='choice', values=('none', 'ada')),)
    """
    found: dict[str, Parameter] = {}
    place = _SEPARATOR.match(text).end()  # type: ignore[union-attr]  # it matches the empty text as well
    while place < len(text):
        term = _TERM.match(text, place)
        if term is None:
            raise UserError(f"params: '{text[place:][:40]}' is no term key=kind(values); write for example {EXAMPLE}")
        key, kind, inside = term.groups()
        parameter = _parameter(key, kind, inside, choice)
        if parameter.key in found:
            raise UserError(f"params: {parameter.key} is named twice")
        found[parameter.key] = parameter
        place = _SEPARATOR.match(text, term.end()).end()  # type: ignore[union-attr]
    if not found:
        raise UserError(f"params: says what may change; write for example {EXAMPLE}")
    return tuple(found.values())


def word(key: str, value: Any) -> str:
    """Return the override that gives a setting a value.

    Examples:
        >>> word("detector.lr", 0.001), word("detector.augment_d", "ada")
        ('detector.lr=0.001', 'detector.augment_d="ada"')
    """
    return f"{key}={json.dumps(value)}"


def _parameter(key: str, kind: str, inside: str, choice: Callable[[str, str], Any]) -> Parameter:
    parts = [part.strip() for part in inside.split(",")] if inside.strip() else []
    name = f"params: {key}={kind}({inside})"
    if kind not in KINDS:
        raise UserError(f"{name}: there is no kind {kind}; there are {', '.join(KINDS)}")
    if kind == "choice":
        values = tuple(_choice(key, part, choice) for part in parts)
        if len({repr(value) for value in values}) < 2:
            raise UserError(f"{name}: give at least two different choices")
        return Parameter(key, kind, values)
    values = tuple(read(part, int | float) for part in parts)
    if len(values) not in ((2, 3) if kind == "int" else (2,)):
        raise UserError(f"{name}: give the two ends{', and a step if you like' if kind == 'int' else ''}")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise UserError(f"{name}: ends are numbers")
    if not all(map(math.isfinite, values)) or not values[0] < values[1]:
        raise UserError(f"{name}: the first end must lie below the second")
    if kind.startswith("log") and values[0] <= 0:
        raise UserError(f"{name}: the ends of a logarithmic range are above 0")
    if kind in ("int", "logint"):
        if not all(value == int(value) for value in values) or (len(values) == 3 and values[2] < 1):
            raise UserError(f"{name}: ends and step are integers, the step at least 1")
        return Parameter(key, kind, tuple(map(int, values)))
    return Parameter(key, kind, tuple(map(float, values)))


def _choice(key: str, text: str, choice: Callable[[str, str], Any]) -> Any:
    try:
        return choice(key, text)
    except yaml.YAMLError as error:
        raise UserError(f"params: '{text}' is no value") from error
