"""Tells whether two runs are the same run: by what was configured and by the code that made its numbers.

With the data's own fingerprint, which the record holds, they identify a run whatever it is called and wherever it lies.

Code is followed from the modules that train and score, or evaluate, through their imports. What counts of a file is its
syntax tree without docstrings; what counts of an import is the content of the imported file. So renaming a module,
a comment or a word of documentation changes nothing, and an edit of a threshold rule does.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from anomaly_lab.experiment.schema import TARGET, locate, moved
from anomaly_lab.types import UserError

Purpose = Literal["training", "evaluation"]

PACKAGE = Path(__file__).parents[1]
NAMES_AND_PLACES = (  # keys that say what a run is called, where things lie and what is shown
    "name",
    "runs",
    "budgets",
    "layers",
    "start_from",
    "data.root",
    "data.source",
    "data.store.folder",
    "data.store.num_workers",
)
DEFAULTS_OF_NEW_KEYS = {  # keys that older records lack, and what those meant
    "evaluation.threshold": "normal_quantile",
    "start_phase": "gan",
}
ENTRY_POINTS: dict[Purpose, tuple[str, ...]] = {  # the modules all code of a purpose is reached from
    "training": ("anomaly_lab.pipeline.training", "anomaly_lab.pipeline.warm_start"),
    "evaluation": ("anomaly_lab.pipeline.evaluate",),
}
TWINS = "anomaly_lab.data.twins."  # what they write is in the data's own fingerprint


def of_config(config: Mapping[str, Any], start: str | None = None) -> str:
    """Hash of a resolved experiment without names and places, 16 hex digits.

    Args:
        config: as config.yaml has it, plain Python.
        start: identity of the run whose finished phase it starts from.
    """
    return _digest(json.dumps([_effective(config), start], sort_keys=True, default=str))


def of_code(config: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the code that an experiment's numbers depend on, 16 hex digits each.

    Returns:
        "training": of weights and raw scores; "evaluation": of what is made of the scores.
    """
    kept = _effective(config)
    sections = [kept.get("data"), kept.get("detector"), *(kept.get("callbacks") or {}).values()]
    classes = {moved(str(section[TARGET])).rpartition(".")[0] for section in sections if section}
    named: dict[Purpose, set[str]] = {"training": classes, "evaluation": set()}
    return {purpose: _code({*modules, *ENTRY_POINTS[purpose]}) for purpose, modules in named.items()}


def _code(modules: set[str]) -> str:
    return _digest(json.dumps(sorted(_module(name) or name for name in modules)))


def _effective(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = copy.deepcopy(dict(config))
    for key in (*NAMES_AND_PLACES, *DEFAULTS_OF_NEW_KEYS):
        *sections, last = key.split(".")
        node: Any = kept
        for section in sections:
            below = node.get(section)
            node = below if isinstance(below, dict) else {}
        if key not in DEFAULTS_OF_NEW_KEYS or node.get(last) == DEFAULTS_OF_NEW_KEYS[key]:
            node.pop(last, None)
    for named in (kept.get("data"), kept.get("detector")):
        if named:
            named[TARGET] = moved(str(named[TARGET]))
    callbacks = kept.get("callbacks") or {}
    kept["callbacks"] = {name: node for name, node in callbacks.items() if node and _changes_scores(str(node[TARGET]))}
    return kept


@cache
def _changes_scores(target: str) -> bool:
    """What a callback's class says of itself; True if it says nothing, or cannot be found any more."""
    with suppress(UserError, ImportError):
        return bool(getattr(locate(target), "changes_scores", True))
    return True


@cache
def _module(name: str) -> str | None:
    """Hash of a module of this package with all it imports in turn; None for any other, and for twins."""
    path = _file(name)
    if path is None or name.startswith(TWINS):
        return None
    tree = ast.parse(path.read_bytes())
    imports: set[str] = set()
    body = _Content(imports).visit(tree)
    reached = sorted(_imported(line) for line in imports)
    return _digest(json.dumps([ast.dump(body), reached]))


def _imported(line: str) -> str:
    """An import with the hash of a module of this package in place of its name, and the names taken from it."""
    module, _, name = line.partition(":")
    if f"{module}.".startswith(TWINS):
        return "a twin"
    if name and (digest := _module(f"{module}.{name}")):
        return digest
    return f"{_module(module) or module}:{name}"


class _Content(ast.NodeTransformer):
    """Takes docstrings and imports out of a syntax tree; the latter are noted as `module:name`."""

    def __init__(self, imports: set[str]) -> None:
        self.imports = imports

    def visit_Import(self, node: ast.Import) -> None:  # ast's name
        self.imports |= {f"{alias.name}:" for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.imports |= {f"{node.module}:{alias.name}" for alias in node.names}

    def generic_visit(self, node: ast.AST) -> ast.AST:
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(node, _DOCUMENTED):
            node.body = [statement for statement in body if not _is_text(statement)]
        return super().generic_visit(node)


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _is_text(statement: ast.stmt) -> bool:
    """Whether it is a docstring, or a text that stands where one could."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _file(module: str) -> Path | None:
    """The file of a module of this package; None for any other, and for a package without content."""
    package, _, rest = module.partition(".")
    path = PACKAGE.joinpath(*rest.split(".")).with_suffix(".py") if rest else None
    return path if path is not None and package == PACKAGE.name and path.is_file() else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
