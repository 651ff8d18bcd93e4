"""Find the YAML files of an experiment and merge them.

An experiments folder has this layout:

    defaults.yaml                            values shared by all experiments
    detectors/<detector>.yaml                a method and its budgets
    datasets/<dataset>.yaml                  a data set and its budgets
    pairs/<detector>_<dataset>.yaml          values tuned for this combination
    <name>.yaml                              a complete experiment in one file
    studies/<study>.yaml

The experiment `<detector>_<dataset>` is composed of the first four, in this order; each file overrides the ones before.
A complete file of the same name takes precedence. If a detector or a data set `extends` another one, the pair files of
that one apply as well. A user's folder overrides the package's file by file: its `datasets/headct.yaml` only needs the
values that differ, for example `data.root`.
"""

from __future__ import annotations

import copy
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from anomaly_lab.experiment.regular import regular
from anomaly_lab.experiment.schema import did_you_mean, in_current_keys, sentence
from anomaly_lab.types import UserError

Tree = dict[str, Any]  # nested sections of plain Python values
BUDGETS = ("paper", "laptop", "smoke")
ENVIRONMENT = "ANOMALY_EXPERIMENTS"  # variable with the user's experiments folder; `--experiments` sets it
DEFAULTS, DETECTORS, DATASETS, PAIRS = "defaults", "detectors", "datasets", "pairs"
VARIABLES = ("ANOMALY_DATA", "ANOMALY_WEIGHTS")  # of the environment, that a file may ask for: ${oc.env:…,default}
MAX_BYTES, MAX_VALUES, MAX_DEPTH = 2**20, 100_000, 50  # of a YAML file; an experiment has some hundred values
OLD_BASES = {"gan": DEFAULTS}  # files of the former folder `_base` that did not become data sets


@dataclass(frozen=True)
class Layer:
    """Content of one YAML file.

    Attributes:
        name: entry in the experiment's `layers`, such as `detectors/fanogan`; includes the folder if it is the user's.
        values: the sections of the file.
        budgets: by budget, the values that override those of all layers, and the budget's own `at_most`.
        at_most: upper limits for numbers in general layers.
        general: whether the file is the defaults, a detector or a data set. `at_most` limits apply to general layers
            only, never to pairs and complete experiments.
    """

    name: str
    values: Tree
    budgets: dict[str, Tree] = field(default_factory=dict)
    at_most: Tree = field(default_factory=dict)
    general: bool = True


# -- locating the files


def package_folder() -> Path:
    """Return the folder of the experiments that ship with the package; in a checkout it is a link to `experiments`.

    Examples:
        >>> (package_folder() / "detectors" / "fanogan.yaml").is_file()
        True
    """
    return Path(__file__).parents[1] / "_experiments"


def folders() -> list[Path]:
    """Return the experiments folders in order of increasing precedence.

    These are the package's folder, `./experiments`, and the folder given by `--experiments` or `ANOMALY_EXPERIMENTS`;
    several have colons between them, as in PATH.

    Raises:
        UserError: a folder that the user specified does not exist.

    Examples:
        >>> folders()[0] == package_folder()
        True
    """
    existing, here = [package_folder()], Path("experiments")
    if here.is_dir() and not (existing[0].is_dir() and here.samefile(existing[0])):
        existing.append(here)
    given = os.environ.get(ENVIRONMENT, "")
    for chosen in [given] if given and Path(given).is_dir() else filter(None, given.split(os.pathsep)):
        if not Path(chosen).is_dir():
            raise UserError(f"{chosen}: no such experiments folder; check --experiments or {ENVIRONMENT}")
        if not any(folder.exists() and Path(chosen).samefile(folder) for folder in existing):
            existing.append(Path(chosen))
    return existing


def detectors() -> dict[str, str]:
    """Return the description (first comment line) of every detector, by name.

    Examples:
        >>> detectors()["dcgan"]
        'DCGAN: its discriminator is the detector.'
    """
    return _comments(f"{DETECTORS}/*.yaml")


def datasets() -> dict[str, str]:
    """Return the description (first comment line) of every data set, by name.

    Examples:
        >>> [name for name in datasets() if "mnist" in name]
        ['abmnist', 'mnist']
    """
    return _comments(f"{DATASETS}/*.yaml")


def whole_files() -> dict[str, str]:
    """Return the description (first comment line) of every experiment that is a complete file, by name.

    Examples:
        >>> "fanogan_headct" in whole_files()  # composed of a detector and a data set instead
        False
    """
    return {name: line for name, line in _comments("*.yaml").items() if name != DEFAULTS}


def studies() -> dict[str, Path]:
    """Return the file of every study, by name.

    Examples:
        >>> "adgan_tables" in studies()
        True
    """
    paths = {path.stem: path for folder in folders() for path in folder.glob("studies/*.yaml")}
    return {name: paths[name] for name in sorted(paths)}


def experiments() -> list[str]:
    """Return the name of every experiment: all pairs `<detector>_<dataset>` and all complete files, sorted.

    Examples:
        >>> "fanogan_headct" in experiments()
        True
    """
    pairs = {f"{detector}_{dataset}" for detector in detectors() for dataset in datasets()}
    return sorted(pairs | set(whole_files()))


def is_tuned(detector: str, dataset: str) -> bool:
    """Return whether a detector was tuned for a data set.

    This is the case if there is a pair file, for the two or for those that they extend, or a complete file.

    Examples:
        >>> is_tuned("ganomaly", "abmnist"), is_tuned("ganomaly", "chexpert")
        (True, False)
    """
    return bool(_pair_files(detector, dataset)) or _whole(f"{detector}_{dataset}") is not None


def _comments(pattern: str) -> dict[str, str]:
    paths = {path.stem: path for folder in folders() for path in folder.glob(pattern) if path.is_file()}
    return {name: _first_comment(paths[name]) for name in sorted(paths)}


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.lstrip("# ").rstrip() for line in lines if line.startswith("#")), "")


# -- selecting the files of an experiment


def layers_of(experiment: str) -> list[Layer]:
    """Return the layers of an experiment, from the most general to the most specific.

    Raises:
        UserError: there is no such experiment, its name is ambiguous, or a file is invalid.

    Examples:
        >>> [layer.name for layer in layers_of("ganomaly_abmnist")]
        ['defaults', 'detectors/ganomaly', 'datasets/abmnist', 'pairs/ganomaly_abmnist']
    """
    return _layers(_files_of(experiment, ()))


def layers_of_dataset(dataset: str) -> list[Layer]:
    """Return the layers of a data set without a detector.

    Raises:
        UserError: there is no such data set, or a file is invalid.

    Examples:
        >>> [layer.name for layer in layers_of_dataset("headct")]
        ['defaults', 'datasets/headct']
    """
    if dataset not in datasets():
        raise UserError(f"no data set '{dataset}'.{did_you_mean(dataset, datasets())} `make list` shows all")
    return _layers([*_named(DEFAULTS), *_with_bases(DATASETS, dataset)])


def _layers(files: Sequence[Path]) -> list[Layer]:
    return [_layer(path) for path in dict.fromkeys(files)]


def _files_of(experiment: str, below: tuple[Path, ...]) -> list[Path]:
    """Return the files of an experiment; `below` is the chain of files that extend it."""
    if whole := _whole(experiment):
        return _with_extended(whole, below)
    known_detectors, known_datasets = detectors(), datasets()
    halves = [(experiment[:i], experiment[i + 1 :]) for i, letter in enumerate(experiment) if letter == "_"]
    pairs = [pair for pair in halves if pair[0] in known_detectors and pair[1] in known_datasets]
    if not pairs:
        raise UserError(f"no experiment '{experiment}'.{_closest(experiment, halves)} `make list` shows all")
    if len(pairs) > 1:
        meant = " or ".join(f"{DETECTORS}/{detector} with {DATASETS}/{dataset}" for detector, dataset in pairs)
        raise UserError(f"'{experiment}' is ambiguous, it can be read as {meant}: rename one of these files")
    detector, dataset = pairs[0]
    general = [*_named(DEFAULTS), *_with_bases(DETECTORS, detector), *_with_bases(DATASETS, dataset)]
    return general + _pair_files(detector, dataset)


def _closest(experiment: str, halves: Sequence[tuple[str, str]]) -> str:
    """Suggest existing names; if one half of the name exists, for the other half only."""
    for detector, dataset in halves:
        if detector in detectors():
            return (
                f" {detector} is a detector, but there is no data set '{dataset}'.{did_you_mean(dataset, datasets())}"
            )
        if dataset in datasets():
            return (
                f" {dataset} is a data set, but there is no detector '{detector}'.{did_you_mean(detector, detectors())}"
            )
    return did_you_mean(experiment, experiments())


def _whole(name: str) -> Path | None:
    """Return the complete file of an experiment from the folder of highest precedence, or None."""
    files = _named(name) if name in whole_files() else []
    return files[-1] if files else None


def _named(name: str) -> list[Path]:
    """Return every file `<name>.yaml`, in order of increasing precedence."""
    return [path for folder in folders() if (path := folder / f"{name}.yaml").is_file()]


def _pair_files(detector: str, dataset: str) -> list[Path]:
    """Return the files of a pair, after those of the pairs that its detector and data set extend."""
    chains = [
        list(dict.fromkeys(path.stem for path in _with_bases(group, name)))
        for group, name in ((DETECTORS, detector), (DATASETS, dataset))
    ]
    return [path for d in chains[0] for s in chains[1] for path in _named(f"{PAIRS}/{d}_{s}")]


def _with_bases(group: str, name: str, below: tuple[Path, ...] = ()) -> list[Path]:
    """Return the files of a detector or a data set, after those of the ones it extends."""
    files = _named(f"{group}/{name}")
    if not files:
        raise UserError(f"{below[-1]}: extends {group}/{name}, which does not exist.{did_you_mean(name, _in(group))}")
    return [member for path in files for member in _with_extended(path, below, group)]


def _in(group: str) -> dict[str, str]:
    return detectors() if group == DETECTORS else datasets()


def _with_extended(path: Path, below: tuple[Path, ...], group: str = "") -> list[Path]:
    """Return a file after those that it extends."""
    if path in below:
        raise UserError(f"{below[-1]}: extends {path}, which extends this file in turn: remove one of the two")
    below, files = (*below, path), []
    for base in _extends(path):
        files += _with_bases(group, base, below) if group else _base(base, below)
    return [*files, path]


def _base(name: str, below: tuple[Path, ...]) -> list[Path]:
    """Return the files of what a complete file extends: an experiment, or a path below an experiments folder."""
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
    if not (files := _named(name)):
        raise UserError(f"{folders()[-1] / name}.yaml does not exist, but {below[-1]} extends it")
    return _with_extended(files[-1], below)


def _extends(path: Path) -> list[str]:
    bases = read(path).get("extends") or []
    return [str(base) for base in ([bases] if isinstance(bases, str) else bases)]


# -- reading and merging


def read(path: Path) -> Tree:
    """Read a YAML file.

    Returns:
        A copy of its mapping; interpolations such as `${seed}` are left unresolved.

    Raises:
        UserError: the file cannot be read, is not valid YAML (the message states the line) or is not a mapping.

    Examples:
        >>> read(package_folder() / "defaults.yaml")["data"]["seed"]
        '${seed}'
    """
    try:
        with regular(path).open(encoding="utf-8") as file:
            return copy.deepcopy(_parsed(path, file.read(MAX_BYTES + 1)))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}, line {line}: {error.problem}") from error
    except (OSError, ValueError, YAMLError) as error:  # such as a date that is none
        raise UserError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {sentence(error)}") from error


@lru_cache(maxsize=256)
def _parsed(path: Path, text: str) -> Tree:
    refuse_bomb(text)
    node = OmegaConf.load(io.StringIO(text))
    if not isinstance(node, DictConfig):
        raise UserError(f"{path}: must contain a mapping of sections, not a list")
    tree = cast(Tree, OmegaConf.to_container(node, resolve=False))
    try:
        refuse_resolvers(tree)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return tree


def refuse_bomb(text: str) -> None:
    """Refuse a YAML text that is long, nested deeply, or becomes long by anchors that repeat other anchors.

    Raises:
        YAMLError: it is such a text.

    Examples:
        >>> refuse_bomb("[&a [1, 2], *a, *a]")
        >>> refuse_bomb("a: &a [*a]")
        Traceback (most recent call last):
        ...
        yaml.error.YAMLError: it is nested too deeply, has more than 100000 values or repeats an unknown anchor
    """
    if len(text) > MAX_BYTES:
        raise YAMLError(f"it has more than {MAX_BYTES} letters")
    sizes: dict[str | None, int] = {}  # number of values in what an anchor stands for
    sections: list[tuple[str | None, int]] = [(None, 0)]  # open ones: anchor, number of values so far
    for event in yaml.parse(text, Loader=_Loader):  # events, because a parsed tree has been built, deep or large
        anchor, size = getattr(event, "anchor", None), 0
        if isinstance(event, yaml.CollectionStartEvent):
            sections.append((anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = sections.pop()
            sizes[anchor] = size
        elif isinstance(event, yaml.AliasEvent):
            size = sizes.get(anchor, MAX_VALUES + 1)  # an anchor that contains itself is not finished
        elif isinstance(event, yaml.ScalarEvent):
            sizes[anchor] = size = 1
        sections[-1] = (sections[-1][0], sections[-1][1] + size)
        if sections[-1][1] > MAX_VALUES or len(sections) > MAX_DEPTH:
            raise YAMLError(f"it is nested too deeply, has more than {MAX_VALUES} values or repeats an unknown anchor")


def refuse_resolvers(value: Any) -> None:
    """Refuse texts with `${…}` that are more than a reference to another key or a default with VARIABLES.

    Whatever a file asks for is written into the run's record, which is shared: it must not read secrets from the
    environment.

    Raises:
        UserError: a text has another interpolation.

    Examples:
        >>> refuse_resolvers({"root": "${oc.env:ANOMALY_DATA,data}/headct", "seed": "${seed}"})
        >>> refuse_resolvers({"root": "${oc.env:HOME}"})
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: ${oc.env:HOME}: takes a key, as in ${data.patch_size}, or ${oc.env:ANOMALY_DATA,...
    """
    if isinstance(value, dict):
        for key, member in value.items():
            refuse_resolvers(str(key))
            refuse_resolvers(member)
    elif isinstance(value, list | tuple):
        for member in value:
            refuse_resolvers(member)
    elif isinstance(value, str) and "${" in _HARMLESS.sub("", value):
        known = " or ".join(f"${{oc.env:{name},…}}" for name in VARIABLES)
        raise UserError(f"{value}: takes a key, as in ${{data.patch_size}}, or {known}")


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_HARMLESS = re.compile(rf"\$\{{(?:[\w.\[\]]+|oc\.env:(?:{'|'.join(VARIABLES)})(?:,[^${{}}]*)?)\}}")


def _layer(path: Path) -> Layer:
    tree = read(path)
    tree.pop("extends", None)
    budgets, at_most = (_mapping(path, key, tree.pop(key, None)) for key in ("budgets", "at_most"))
    for budget, values in budgets.items():
        if budget not in BUDGETS:
            raise UserError(f"{path}: budgets.{budget}: unknown budget; the budgets are {', '.join(BUDGETS)}")
        changes = _mapping(path, f"budgets.{budget}", values)
        caps = _mapping(path, f"budgets.{budget}.at_most", changes.pop("at_most", None))
        budgets[budget] = _current(nested(changes)) | {"at_most": _current(nested(caps))}
    tree, at_most = _current(tree), _current(nested(at_most))
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
    """Print the current name of each deprecated key, once per key and process, in yellow on stderr.

    Args:
        used: current name by deprecated name, as `in_current_keys` returns it.

    Examples:
        >>> tell_of_new_keys({"data.twin_size": "data.twin.size"})  # doctest: +SKIP
        data.twin_size is now data.twin.size; the old name will be removed in the next release
    """
    for old, new in used.items():
        _tell(old, new)


@cache
def _tell(old: str, new: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(
        f"[yellow]{old} is now {new}; the old name will be removed in the next release", soft_wrap=True
    )


def _mapping(path: Path, key: str, value: Any) -> Tree:
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{path}: {key} must be a mapping, not {value!r}")
    return {str(name): content for name, content in (value or {}).items()}


def composed(layers: Sequence[Layer], budget: str | None = None) -> Tree:
    """Merge the values of all layers, then those of a budget; later values override earlier ones.

    Numbers in general layers are limited by the `at_most` of any layer: a detector's batch size by the number of images
    of a data set, the number of test images of a data set by what a slow detector can score. Pairs and complete
    experiments are not limited.

    Examples:
        >>> detector = Layer("detectors/a", {"data": {"batch_size": 64}, "seed": 0}, {"smoke": {"seed": 1}})
        >>> dataset = Layer("datasets/b", {}, at_most={"data": {"batch_size": 16}})
        >>> composed([detector, dataset], "smoke")
        {'data': {'batch_size': 16}, 'seed': 1}
    """
    budgeted = [(layer, dict(layer.budgets.get(budget, {})) if budget else {}) for layer in layers]
    caps: Tree = {}
    for layer, values in budgeted:
        for at_most in (layer.at_most, values.pop("at_most", {})):
            caps = overlaid(caps, _lowered(at_most, caps))
    whole = caps
    for layer, _ in budgeted:
        whole = overlaid(whole, _lowered(layer.values, caps) if layer.general else layer.values)
    for layer, values in budgeted:
        whole = overlaid(whole, _lowered(values, caps) if layer.general else values)
    return copy.deepcopy(whole)


def changed_by_budget(layers: Sequence[Layer], budget: str) -> Tree:
    """Return every value that a budget changes, by dotted key.

    Examples:
        >>> changed_by_budget([Layer("a", {"seed": 0, "x": 1}, {"smoke": {"seed": 1}})], "smoke")
        {'seed': 1}
    """
    before, after = (dict(leaves(composed(layers, name))) for name in (None, budget))
    return {key: value for key, value in after.items() if key not in before or before[key] != value}


def leaves(tree: Tree, above: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over the values of a tree with their dotted keys.

    Args:
        tree: nested mappings; an empty mapping counts as a value.
        above: prefix of the keys.

    Examples:
        >>> list(leaves({"seed": 0, "data": {"size": 32, "limits": {}}}))
        [('seed', 0), ('data.size', 32), ('data.limits', {})]
    """
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def overlaid(below: Tree, above: Tree) -> Tree:
    """Merge `above` into a copy of `below`; values other than mappings are replaced."""
    whole = dict(below)
    for key, value in above.items():
        is_section = isinstance(value, dict) and isinstance(whole.get(key), dict)
        whole[key] = overlaid(whole[key], value) if is_section else value
    return whole


def nested(values: Tree) -> Tree:
    """Convert dotted keys to nested mappings."""
    tree: Tree = {}
    for key, value in values.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = overlaid(tree, value)
    return tree


def _lowered(value: Any, cap: Any) -> Any:
    """Limit a number, or each number in a mapping or list, to the corresponding number in `cap`."""
    if isinstance(value, dict) and isinstance(cap, dict):
        return {key: _lowered(part, cap.get(key)) for key, part in value.items()}
    if isinstance(value, list) and isinstance(cap, list) and len(value) == len(cap):
        return [_lowered(part, limit) for part, limit in zip(value, cap, strict=True)]
    comparable = isinstance(value, int | float) and isinstance(cap, int | float)
    return min(value, cap) if comparable else value
