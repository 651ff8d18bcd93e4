"""Finds the YAML files that an experiment is made of, and lays them over each other.

An experiments folder holds

    defaults.yaml                            what all share
    detectors/<detector>.yaml                a method, with its budgets
    datasets/<dataset>.yaml                  a data set, with its budgets
    pairs/<detector>_<dataset>.yaml          what was tuned for the two together
    <name>.yaml                              a whole experiment of its own
    studies/<study>.yaml

The experiment `<detector>_<dataset>` is composed of the first four, in that order; a whole file of that name wins.
Where a detector or a data set `extends` another one, the pairs of that one count, too. A user's folders are laid over
the package's file by file: `datasets/headct.yaml` there need only hold what differs, say `data.root`.
"""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from anomaly_lab.experiment.schema import did_you_mean, in_current_keys, sentence
from anomaly_lab.types import UserError

Tree = dict[str, Any]  # sections, sections within them, values; plain Python
BUDGETS = ("paper", "laptop", "smoke")
ENVIRONMENT = "ANOMALY_EXPERIMENTS"  # names the user's own folder; `--experiments` sets it
DEFAULTS, DETECTORS, DATASETS, PAIRS = "defaults", "detectors", "datasets", "pairs"
OLD_BASES = {"gan": DEFAULTS}  # of the former folder `_base`; all others became data sets


@dataclass(frozen=True)
class Layer:
    """One YAML file.

    Attributes:
        name: as the experiment's `layers` list it, `detectors/fanogan`; with its folder where that is the user's.
        values: its sections.
        budgets: for each budget the values it lays over those of all layers, and its own `at_most`.
        at_most: numbers to which the values of general layers are lowered.
        general: a detector's, a data set's or everybody's; those of a pair and of a whole file are never lowered.
    """

    name: str
    values: Tree
    budgets: dict[str, Tree] = field(default_factory=dict)
    at_most: Tree = field(default_factory=dict)
    general: bool = True


# -- where the files are


def package_folder() -> Path:
    """The experiments that come with the package; in a checkout a link to the folder beside it."""
    return Path(__file__).parents[1] / "_experiments"


def folders() -> list[Path]:
    """The experiments folders from the package's own to the most particular: `./experiments`, then the user's choice.

    Raises:
        UserError: the folder that the user chose does not exist.
    """
    found, here = [package_folder()], Path("experiments")
    if here.is_dir() and not (found[0].is_dir() and here.samefile(found[0])):
        found.append(here)
    if chosen := os.environ.get(ENVIRONMENT):
        if not Path(chosen).is_dir():
            raise UserError(f"{chosen}: no such folder of experiments (--experiments or {ENVIRONMENT})")
        if not any(folder.exists() and Path(chosen).samefile(folder) for folder in found):
            found.append(Path(chosen))
    return found


def detectors() -> dict[str, str]:
    """First comment line of every detector, by name."""
    return _comments(f"{DETECTORS}/*.yaml")


def datasets() -> dict[str, str]:
    """First comment line of every data set, by name."""
    return _comments(f"{DATASETS}/*.yaml")


def whole_files() -> dict[str, str]:
    """First comment line of every experiment that has a whole file, by name."""
    return {name: line for name, line in _comments("*.yaml").items() if name != DEFAULTS}


def studies() -> dict[str, Path]:
    """The file of every study, by name."""
    found = {path.stem: path for folder in folders() for path in folder.glob("studies/*.yaml")}
    return {name: found[name] for name in sorted(found)}


def experiments() -> list[str]:
    """Every name that `load` takes: all pairs, and all whole files."""
    pairs = {f"{detector}_{dataset}" for detector in detectors() for dataset in datasets()}
    return sorted(pairs | set(whole_files()))


def is_tuned(detector: str, dataset: str) -> bool:
    """Whether a pair has values of its own: a file in `pairs`, of what it extends as well, or a whole file."""
    return bool(_pair_files(detector, dataset)) or _whole(f"{detector}_{dataset}") is not None


def _comments(pattern: str) -> dict[str, str]:
    paths = {path.stem: path for folder in folders() for path in folder.glob(pattern)}
    return {name: _first_comment(paths[name]) for name in sorted(paths)}


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.lstrip("# ").rstrip() for line in lines if line.startswith("#")), "")


# -- which files an experiment is made of


def layers_of(experiment: str) -> list[Layer]:
    """The layers of an experiment, from the most general to the most particular.

    Raises:
        UserError: there is no such experiment, its name can be read in two ways, or a file is wrong.
    """
    return _layers(_files_of(experiment, ()))


def layers_of_dataset(dataset: str) -> list[Layer]:
    """The layers of a data set alone, without a detector.

    Raises:
        UserError: there is none of that name, or a file is wrong.
    """
    if dataset not in datasets():
        raise UserError(f"no data set '{dataset}'.{did_you_mean(dataset, datasets())} `make list` shows all")
    return _layers([*_named(DEFAULTS), *_with_bases(DATASETS, dataset)])


def _layers(files: Sequence[Path]) -> list[Layer]:
    return [_layer(path) for path in dict.fromkeys(files)]


def _files_of(experiment: str, below: tuple[Path, ...]) -> list[Path]:
    """The files of an experiment; `below` are the files that extend it."""
    if whole := _whole(experiment):
        return _with_extended(whole, below)
    known_detectors, known_datasets = detectors(), datasets()
    halves = [(experiment[:i], experiment[i + 1 :]) for i, letter in enumerate(experiment) if letter == "_"]
    pairs = [pair for pair in halves if pair[0] in known_detectors and pair[1] in known_datasets]
    if not pairs:
        raise UserError(f"no experiment '{experiment}'.{_closest(experiment, halves)} `make list` shows all")
    if len(pairs) > 1:
        meant = " or ".join(f"{DETECTORS}/{detector} with {DATASETS}/{dataset}" for detector, dataset in pairs)
        raise UserError(f"'{experiment}' can be read as {meant}: rename one of these files")
    detector, dataset = pairs[0]
    general = [*_named(DEFAULTS), *_with_bases(DETECTORS, detector), *_with_bases(DATASETS, dataset)]
    return general + _pair_files(detector, dataset)


def _closest(experiment: str, halves: Sequence[tuple[str, str]]) -> str:
    """What may have been meant; where one half is right, what can stand beside it."""
    for detector, dataset in halves:
        if detector in detectors():
            return f" {detector} is a detector, but '{dataset}' no data set.{did_you_mean(dataset, datasets())}"
        if dataset in datasets():
            return f" {dataset} is a data set, but '{detector}' no detector.{did_you_mean(detector, detectors())}"
    return did_you_mean(experiment, experiments())


def _whole(name: str) -> Path | None:
    """The whole file of an experiment, the most particular one."""
    found = _named(name) if name in whole_files() else []
    return found[-1] if found else None


def _named(name: str) -> list[Path]:
    """Every file `<name>.yaml`, the package's first."""
    return [path for folder in folders() if (path := folder / f"{name}.yaml").is_file()]


def _pair_files(detector: str, dataset: str) -> list[Path]:
    """Files of a pair and of the pairs of what its halves extend, from the general to the particular."""
    chains = [
        list(dict.fromkeys(path.stem for path in _with_bases(group, name)))
        for group, name in ((DETECTORS, detector), (DATASETS, dataset))
    ]
    return [path for d in chains[0] for s in chains[1] for path in _named(f"{PAIRS}/{d}_{s}")]


def _with_bases(group: str, name: str, below: tuple[Path, ...] = ()) -> list[Path]:
    """The files of a detector or a data set, behind those of what it extends."""
    files = _named(f"{group}/{name}")
    if not files:
        raise UserError(f"{below[-1]}: extends {group}/{name}, which does not exist.{did_you_mean(name, _in(group))}")
    return [found for path in files for found in _with_extended(path, below, group)]


def _in(group: str) -> dict[str, str]:
    return detectors() if group == DETECTORS else datasets()


def _with_extended(path: Path, below: tuple[Path, ...], group: str = "") -> list[Path]:
    """A file behind those that it extends."""
    if path in below:
        raise UserError(f"{below[-1]}: extends {path}, which extends it: take one of the two out")
    below, files = (*below, path), []
    for base in _extends(path):
        files += _with_bases(group, base, below) if group else _base(base, below)
    return [*files, path]


def _base(name: str, below: tuple[Path, ...]) -> list[Path]:
    """The files of what a whole file extends: an experiment, or a path below an experiments folder."""
    folder, _, stem = name.rpartition("/")
    if folder == "_base" and not _named(name):
        name = OLD_BASES.get(stem, f"{DATASETS}/{stem}")
        folder, _, stem = name.rpartition("/")
    if folder in (DETECTORS, DATASETS):
        return _with_bases(folder, stem, below)
    if name == DEFAULTS:
        return _named(name)
    if not folder:
        try:
            return _files_of(name, below)
        except UserError as error:
            raise UserError(f"{below[-1]}: extends: {error}") from error
    if not (found := _named(name)):
        raise UserError(f"{folders()[-1] / name}.yaml does not exist, but {below[-1]} extends it")
    return _with_extended(found[-1], below)


def _extends(path: Path) -> list[str]:
    bases = read(path).get("extends") or []
    return [str(base) for base in ([bases] if isinstance(bases, str) else bases)]


# -- reading and laying


def read(path: Path) -> Tree:
    """The mapping in a YAML file.

    Raises:
        UserError: it cannot be read or is no mapping; names the line.
    """
    try:
        return copy.deepcopy(_parsed(path, path.read_text(encoding="utf-8")))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}, line {line}: {error.problem}") from error
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {sentence(error)}") from error


@lru_cache(maxsize=256)
def _parsed(path: Path, text: str) -> Tree:
    node = OmegaConf.load(io.StringIO(text))
    if not isinstance(node, DictConfig):
        raise UserError(f"{path}: must be a mapping of sections, not a list")
    return cast(Tree, OmegaConf.to_container(node, resolve=False))


def _layer(path: Path) -> Layer:
    tree = read(path)
    tree.pop("extends", None)
    budgets, at_most = (_mapping(path, key, tree.pop(key, None)) for key in ("budgets", "at_most"))
    for budget, values in budgets.items():
        if budget not in BUDGETS:
            raise UserError(f"{path}: budgets.{budget}: there are {', '.join(BUDGETS)}")
        laid = _mapping(path, f"budgets.{budget}", values)
        caps = _mapping(path, f"budgets.{budget}.at_most", laid.pop("at_most", None))
        budgets[budget] = _current(_nested(laid)) | {"at_most": _current(_nested(caps))}
    tree, at_most = _current(tree), _current(_nested(at_most))
    root = next(folder for folder in reversed(folders()) if path.is_relative_to(folder))
    name = path.relative_to(root).with_suffix("").as_posix()
    general = name == DEFAULTS or name.partition("/")[0] in (DETECTORS, DATASETS)
    shown = name if root == package_folder() else path.with_suffix("").as_posix()
    return Layer(shown, tree, budgets, at_most, general)


def _current(tree: Tree) -> Tree:
    current, used = in_current_keys(tree)
    tell_of_new_keys(used)
    return current


def tell_of_new_keys(used: Mapping[str, str]) -> None:
    """Say once in yellow how each key that was given under an old name is called now."""
    for old, new in used.items():
        _tell(old, new)


@cache
def _tell(old: str, new: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(f"[yellow]{old} is now {new}; the old key goes with the next release", soft_wrap=True)


def _mapping(path: Path, key: str, value: Any) -> Tree:
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{path}: {key} must be a mapping, not {value!r}")
    return {str(name): content for name, content in (value or {}).items()}


def composed(layers: Sequence[Layer], budget: str | None = None) -> Tree:
    """The values of all layers, then those of a budget, each over the ones before.

    What general layers say is lowered to the `at_most` of any layer: a detector's batch to what a data set has images
    for, a data set's test images to what a slow detector can score. Pairs and whole files come as they are.
    """
    given = [(layer, dict(layer.budgets.get(budget, {})) if budget else {}) for layer in layers]
    caps: Tree = {}
    for layer, values in given:
        for at_most in (layer.at_most, values.pop("at_most", {})):
            caps = _merged(caps, _lowered(at_most, caps))
    whole = caps
    for layer, _ in given:
        whole = _merged(whole, _lowered(layer.values, caps) if layer.general else layer.values)
    for layer, values in given:
        whole = _merged(whole, _lowered(values, caps) if layer.general else values)
    return copy.deepcopy(whole)


def changed_by_budget(layers: Sequence[Layer], budget: str) -> Tree:
    """Every value that a budget changes, by dotted key."""
    before, after = (dict(leaves(composed(layers, taken))) for taken in (None, budget))
    return {key: value for key, value in after.items() if key not in before or before[key] != value}


def leaves(tree: Tree, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a tree with its dotted key."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _merged(below: Tree, above: Tree) -> Tree:
    """One tree laid over another; only mappings are merged."""
    whole = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(whole.get(key), dict)
        whole[key] = _merged(whole[key], value) if both else value
    return whole


def _nested(values: Tree) -> Tree:
    """Dotted keys as a tree."""
    tree: Tree = {}
    for key, value in values.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = _merged(tree, value)
    return tree


def _lowered(value: Any, cap: Any) -> Any:
    """A value, or its parts, lowered to `cap` where that has numbers."""
    if isinstance(value, dict) and isinstance(cap, dict):
        return {key: _lowered(part, cap.get(key)) for key, part in value.items()}
    if isinstance(value, list) and isinstance(cap, list) and len(value) == len(cap):
        return [_lowered(part, limit) for part, limit in zip(value, cap, strict=True)]
    both = isinstance(value, int | float) and isinstance(cap, int | float)
    return min(value, cap) if both else value
