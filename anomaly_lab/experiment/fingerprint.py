"""Tells whether two runs are the same run: by what was configured and by the code that made its scores.

With the data's own fingerprint, which the record holds, they identify a run whatever it is called and wherever it lies.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
DECIDES = ("pipeline/engine.py", "pipeline/warm_start.py", "callbacks/randomness.py", "callbacks/scoring.py")
WITHOUT_EFFECT = (  # on a score: names, places, what is shown
    "name",
    "runs",
    "budgets",
    "layers",
    "start_from",
    "data.root",
    "data.source",
    "data.store.folder",
    "data.store.num_workers",
    "data.store_dir",  # of older records
    "data.num_workers",
    "callbacks.wandb",
    "callbacks.progress",
    "callbacks.record",
    "callbacks.samples",
    "callbacks.health",
)
DEFAULTS_OF_NEW_KEYS = {"evaluation.threshold": "normal_quantile"}  # keys that older records lack, and what those meant


def of_config(config: Mapping[str, Any], start: str | None = None) -> str:
    """Hash of a resolved experiment without names and places, 16 hex digits.

    Args:
        config: as config.yaml has it, plain Python.
        start: identity of the run whose finished phase it starts from.
    """
    return _digest(json.dumps([_effective(config), start], sort_keys=True, default=str).encode())


def of_code(config: Mapping[str, Any]) -> str:
    """Hash of the package's files that an experiment's scores depend on, 16 hex digits.

    These are the classes the experiment names, all of the package that they import in turn, and `DECIDES`, but
    not what these import: the engine imports the report as well. Another detector, the report or a study may change
    without making a finished run stale.
    """
    kept = _effective(config)
    sections = [kept.get("data"), kept.get("detector"), *(kept.get("callbacks") or {}).values()]
    named = {str(section["_target_"]).rpartition(".")[0] for section in sections if section}
    files = {PACKAGE / name for name in DECIDES if (PACKAGE / name).exists()}
    waiting = [path for name in named if (path := _file(name))]
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.add(path)
            waiting += _imported(path)
    return _digest(*(part for path in sorted(files) for part in (str(path.relative_to(PACKAGE)).encode(), _read(path))))


def _effective(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = copy.deepcopy(dict(config))
    for key in (*WITHOUT_EFFECT, *DEFAULTS_OF_NEW_KEYS):
        *sections, last = key.split(".")
        node: Any = kept
        for section in sections:
            below = node.get(section)
            node = below if isinstance(below, dict) else {}
        if key not in DEFAULTS_OF_NEW_KEYS or node.get(last) == DEFAULTS_OF_NEW_KEYS[key]:
            node.pop(last, None)
    return kept


@cache
def _read(path: Path) -> bytes:
    return path.read_bytes()


@cache
def _imported(path: Path) -> tuple[Path, ...]:
    return tuple(found for name in _names(ast.parse(_read(path))) if (found := _file(name)))


def _names(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that is imported anywhere in a file; of `from a import b` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(module: str) -> Path | None:
    """The file of a module of this package; None for any other, and for a room without content."""
    package, _, rest = module.partition(".")
    path = PACKAGE.joinpath(*rest.split(".")).with_suffix(".py") if rest else None
    return path if path is not None and package == PACKAGE.name and path.is_file() else None


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]
