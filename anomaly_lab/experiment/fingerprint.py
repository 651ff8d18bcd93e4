"""Fingerprints that tell whether two runs have the same configuration and were computed by the same code.

Together with the fingerprint of the data, which the run folder records, they identify a run independently of its name
and location.

The code fingerprint covers the modules that train and score, or that evaluate, and everything they import within the
package. A file contributes its syntax tree without docstrings, an import contributes the content of the imported file.
Renaming a module or editing a comment or a docstring therefore changes nothing; editing a threshold rule does. Of a
package that the user trusts all files count.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from anomaly_lab.experiment import trust
from anomaly_lab.experiment.purpose import quantile_of
from anomaly_lab.experiment.schema import KEYS, TARGET, locate, moved
from anomaly_lab.types import UserError

Purpose = Literal["training", "evaluation"]

PACKAGE = Path(__file__).parents[1]
NAMES_AND_PLACES = (  # keys without effect on the numbers: names, locations and information
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
DEFAULTS_OF_NEW_KEYS = {  # keys that older run folders lack, with the value they imply
    "evaluation.threshold": "normal_quantile",
    "evaluation.reference": "validation",
    "evaluation.prevalence": 0.05,
    "evaluation.scans_per_day": 100,
    "evaluation.feature_baselines": "auto",
    "evaluation.planted": False,
    "start_phase": "gan",
    "compile": "never",
    "data.store.device": "auto",
    "data.split.by": "patient",
    "data.group": "patient",
    "data.protocol": "random",
    "data.crop": "none",
    "score.features": False,
    "score.share": 0.05,
    "detector.augment_p": None,
    "detector.anneal": 0.0,
    "detector.lr_generator": None,
}
REPEATS = ("seed", "fold")  # settings so named make a run another repeat of the same thing
OF_SUPERVISION = ("supervision", "target_type", "classes")  # keys of data without effect if no labels are used
ENTRY_POINTS: dict[Purpose, tuple[str, ...]] = {  # modules from which imports are followed
    "training": ("anomaly_lab.pipeline.training", "anomaly_lab.pipeline.warm_start"),
    "evaluation": ("anomaly_lab.pipeline.evaluate",),
}
TWINS = "anomaly_lab.data.twins."  # synthetic twins: the data fingerprint covers what they generate


def of_config(config: Mapping[str, Any], start: str | None = None) -> str:
    """Hash a resolved experiment without its names and locations.

    Args:
        config: content of config.yaml as plain Python.
        start: identity of the run that it warm-starts from.

    Returns:
        16 hex digits.

    Examples:
        >>> of_config({"name": "a", "seed": 0}) == of_config({"name": "b", "seed": 0})
        True
        >>> of_config({"name": "a", "seed": 0}) == of_config({"name": "a", "seed": 1})
        False
    """
    return _digest(json.dumps([_effective(config), start], sort_keys=True, default=str))


def of_repeats(config: Mapping[str, Any]) -> str:
    """Hash a resolved experiment without its names, locations, seeds and folds: repeats of each other have the same.

    Args:
        config: content of config.yaml as plain Python.

    Returns:
        16 hex digits.

    Examples:
        >>> one, other = ({"seed": seed, "detector": None, "data": {"seed": seed}} for seed in (0, 1))
        >>> of_repeats(one) == of_repeats(other)
        True
    """
    return _digest(json.dumps(_without_repeats(_effective(config)), sort_keys=True, default=str))


def _without_repeats(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_repeats(value) for key, value in node.items() if key not in REPEATS}
    return node


def difference(config: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the dotted key of the first setting that makes two resolved experiments two runs; None for the same run.

    Args:
        config, other: content of config.yaml as plain Python.

    Examples:
        >>> difference({"name": "a", "seed": 0}, {"name": "b", "seed": 0}) is None
        True
        >>> difference({"detector": None, "evaluation": {"top_k": 5}}, {"detector": None, "evaluation": {"top_k": 10}})
        'evaluation.top_k'
    """
    key = next(_differences(_effective(config), _effective(other)), None)
    return KEYS.get(key, key) if key else None


def of_code(config: Mapping[str, Any]) -> dict[str, str]:
    """Hash the code that an experiment's numbers depend on.

    Args:
        config: content of config.yaml as plain Python.

    Returns:
        16 hex digits each: "training" for the code that determines weights and raw scores, "evaluation" for the code
        that computes metrics from the scores.

    Examples:
        >>> sorted(of_code({"detector": {"_target_": "anomaly_lab.detectors.ganomaly.GANomaly"}}))
        ['evaluation', 'training']
    """
    kept = _effective(config)
    sections = [kept.get("data"), kept.get("detector"), *(kept.get("callbacks") or {}).values()]
    classes = {moved(str(section[TARGET])).rpartition(".")[0] for section in sections if section}
    named: dict[Purpose, set[str]] = {"training": classes, "evaluation": set()}
    return {purpose: _code({*modules, *ENTRY_POINTS[purpose]}) for purpose, modules in named.items()}


def _code(modules: set[str]) -> str:
    return _digest(json.dumps(sorted(_module(name) or _trusted(name, trust.packages()) or name for name in modules)))


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
    _purpose_as_quantile(kept.get("evaluation"))
    if (kept.get("score") or {}).get("source", "detector") == "detector":  # the other settings have no effect then
        kept.pop("score", None)
    data = kept.get("data")
    if isinstance(data, dict) and data.get("supervision", "none") == "none":
        for key in OF_SUPERVISION:
            data.pop(key, None)
        if isinstance(data.get("split"), dict):
            data["split"].pop("test_fraction", None)
    for named in (kept.get("data"), kept.get("detector")):
        if isinstance(named, dict) and TARGET in named:
            named[TARGET] = moved(str(named[TARGET]))
    callbacks = kept.get("callbacks") or {}
    kept["callbacks"] = {name: node for name, node in callbacks.items() if node and changes_scores(str(node[TARGET]))}
    return kept


def _purpose_as_quantile(evaluation: object) -> None:
    """Write the number that a purpose stands for, as older records have it."""
    if isinstance(evaluation, dict) and "purpose" in evaluation:
        evaluation["quantile"] = quantile_of(evaluation.pop("purpose"))


def _differences(one: Mapping[str, Any], other: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the dotted keys of the values in which two nested mappings differ."""
    for key in {**one, **other}:
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{above}{key}.")
        elif a != b:
            yield f"{above}{key}"


@cache
def changes_scores(target: str) -> bool:
    """Return the `changes_scores` of a callback's class; True if it has none or no longer exists.

    What a class of this package declares is read from its file: who only compares runs need not import torch.

    Args:
        target: dotted path of the class.

    Examples:
        >>> changes_scores("anomaly_lab.callbacks.no.SuchCallback")
        True
    """
    module, _, name = moved(target).rpartition(".")
    if path := _file(module):
        for node in ast.parse(path.read_bytes()).body:
            for line in node.body if isinstance(node, ast.ClassDef) and node.name == name else ():
                if isinstance(line, ast.Assign) and [ast.unparse(each) for each in line.targets] == ["changes_scores"]:
                    return bool(ast.literal_eval(line.value))
    with suppress(UserError, ImportError):
        return bool(getattr(locate(target), "changes_scores", True))
    return True


@cache
def _module(name: str) -> str | None:
    """Hash a module of this package and all it imports; None for other modules and for synthetic twins."""
    path = _file(name)
    if path is None or name.startswith(TWINS):
        return None
    tree = ast.parse(path.read_bytes())
    imports: set[str] = set()
    body = _Content(name, imports).visit(tree)
    reached = sorted(_imported(line) for line in imports)
    return _digest(json.dumps([ast.dump(body), reached]))


@cache
def _trusted(name: str, packages: tuple[str, ...]) -> str | None:
    """Hash the package of the user's that a module lies in, and what it imports of this one; None for other modules.

    The whole package counts, whatever the module imports of it: nobody keeps it free of circles.
    """
    root = next((each for each in packages if name == each or name.startswith(f"{each}.")), None)
    with suppress(ImportError, ValueError):
        spec = find_spec(root) if root else None
        if spec is not None:
            folders = list(map(Path, spec.submodule_search_locations or ()))
            files = [(path.relative_to(folder), path) for folder in folders for path in folder.rglob("*.py")]
            if not folders and spec.origin:
                files = [(Path(root or ""), Path(spec.origin))]
            return _digest(json.dumps([[place.as_posix(), _of_file(name, path)] for place, path in sorted(files)]))
    return None


def _of_file(module: str, path: Path) -> str:
    """Hash a file of a package of the user's, and the modules of this package that it imports."""
    content, imports = path.read_bytes(), set[str]()
    try:
        body = ast.dump(_Content(module, imports).visit(ast.parse(content)))
    except (SyntaxError, ValueError):  # a template, or of another Python
        return hashlib.sha256(content).hexdigest()
    lines = sorted(imports)
    return _digest(
        json.dumps([body, lines, [_imported(line) for line in lines if line.startswith(f"{PACKAGE.name}.")]])
    )


def _imported(line: str) -> str:
    """Describe an import `module:name`; modules of this package are replaced by their hash."""
    module, _, name = line.partition(":")
    if f"{module}.".startswith(TWINS):
        return "a twin"
    if name and (digest := _module(f"{module}.{name}")):
        return digest
    return f"{_module(module) or module}:{name}"


def _found_by(module: str, package: str) -> set[str]:
    """Return the imports by which `catalogue.classes(package)` of a module finds classes, as `module:`.

    Only what a module finds in its own room makes up its numbers, such as baselines; others only name what there is.
    """
    if not package.startswith(module.rpartition(".")[0]):
        return set()
    folder = PACKAGE.joinpath(*package.split(".")[1:])
    found = {f"{package}.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"}
    return {f"{name}:" for name in found - {module}}


class _Content(ast.NodeTransformer):
    """Transformer that removes docstrings and imports from a syntax tree; collects imports as `module:name`.

    What `catalogue.classes("package")` imports counts as imported.
    """

    def __init__(self, module: str, imports: set[str]) -> None:
        self.module, self.imports = module, imports

    def visit_If(self, node: ast.If) -> ast.AST | None:  # name required by ast
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":  # never run, and may import in circles
            return None
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:  # name required by ast
        self.imports |= {f"{alias.name}:" for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.imports |= {f"{node.module}:{alias.name}" for alias in node.names}

    def visit_Call(self, node: ast.Call) -> ast.AST:  # name required by ast
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="catalogue"), attr="classes"),
                args=[ast.Constant(value=str() as package)],
            ):
                self.imports |= _found_by(self.module, package)
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(node, _DOCUMENTED):
            node.body = [statement for statement in body if not _is_text(statement)]
        return super().generic_visit(node)


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _is_text(statement: ast.stmt) -> bool:
    """Return whether a statement is a docstring or another bare constant."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _file(module: str) -> Path | None:
    """Return the file of a module of this package; None for other modules and for packages."""
    package, _, rest = module.partition(".")
    path = PACKAGE.joinpath(*rest.split(".")).with_suffix(".py") if rest else None
    return path if path is not None and package == PACKAGE.name and path.is_file() else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
