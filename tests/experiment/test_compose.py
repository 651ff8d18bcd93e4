"""Layers by hand: which files an experiment is made of, and what their values, budgets and limits come to."""

import os
from pathlib import Path

import pytest

from anomaly_lab.experiment import compose, config
from anomaly_lab.types import UserError

pytestmark = pytest.mark.usefixtures("trusted_toys")
DATA = f"_target_: {__name__}.Data"
FILES = {
    "defaults": f"seed: 3\ndata: {{batch_size: 64, seed: '${{seed}}'}}\ntrainer: {{_target_: {__name__}.Trainer}}\n"
    "budgets: {paper: {}, laptop: {}, smoke: {data.batch_size: 8}}\n",
    "detectors/gan": f"# A GAN.\ndetector: {{_target_: {__name__}.Gan, width: 4}}\n"
    "budgets:\n  paper: {data.batch_size: 100}\n  laptop: {data.batch_size: 32, detector.iterations: 10}\n",
    "detectors/gan_mean": "# Its mean.\nextends: gan\ndetector: {restarts: 5}\n"
    "budgets: {laptop: {at_most: {data.limits: {test: 500}}}}\n",
    "datasets/scans": f"# Scans.\ndata: {{{DATA}, root: scans, limits: {{test: 2000}}}}\n"
    "at_most: {data.batch_size: 64}\nbudgets: {laptop: {at_most: {data.batch_size: 16}}}\n",
    "datasets/scan_patches": "# Their patches.\nextends: scans\ndata: {root: patches}\n",
    "datasets/digits": f"# Digits.\ndata: {{{DATA}, root: digits}}\n",
    "pairs/gan_digits": "# Long.\ndetector: {width: 8}\nbudgets: {laptop: {data.batch_size: 128}}\n",
    "pairs/gan_scans": "budgets: {laptop: {detector.iterations: 20}}\n",
}


class Data:
    def __init__(self, root: str, batch_size: int = 1, limits: dict[str, int] | None = None, seed: int = 0) -> None: ...


class Gan:
    def __init__(self, width: int = 1, iterations: int = 1, restarts: int = 1) -> None: ...


class Trainer: ...


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's experiments; the working directory is another one."""
    folder = tmp_path / "package"
    for name, text in FILES.items():
        write(folder, name, text)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(compose, "package_folder", lambda: folder)
    monkeypatch.delenv(compose.ENVIRONMENT, raising=False)
    return folder


def write(folder: Path, name: str, text: str) -> None:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def load(name: str, budget: str = "laptop", *overrides: str):
    return config.load(name, [f"budget={budget}", *overrides])


def names(experiment: str) -> list[str]:
    return [layer.name for layer in compose.layers_of(experiment)]


def test_a_pair_is_made_of_defaults_detector_data_set_and_what_was_tuned_for_both():
    assert names("gan_digits") == ["defaults", "detectors/gan", "datasets/digits", "pairs/gan_digits"]
    pair = load("gan_digits", "paper")
    assert (pair.seed, pair.data.seed, pair.data.root, pair.detector.width, pair.data.batch_size) == (
        3,
        3,
        "digits",
        8,
        100,
    )
    assert list(pair.layers) == names("gan_digits")


def test_the_pairs_of_what_is_extended_count():
    assert names("gan_mean_scan_patches") == [
        "defaults", "detectors/gan", "detectors/gan_mean", "datasets/scans", "datasets/scan_patches", "pairs/gan_scans",
    ]  # fmt: skip
    assert load("gan_mean_scan_patches").detector == {
        "_target_": f"{__name__}.Gan", "width": 4, "iterations": 20, "restarts": 5,
    }  # fmt: skip


def test_budgets_lie_over_all_base_values_and_under_the_overrides(package: Path):
    write(package, "pairs/gan_digits", "data: {batch_size: 7}\ndetector: {iterations: 3}\n")
    assert (load("gan_digits").data.batch_size, load("gan_digits").detector.iterations) == (32, 10)
    assert load("gan_digits", "laptop", "data.batch_size=5").data.batch_size == 5


@pytest.mark.parametrize(("experiment", "budget", "batch"), [
    ("gan_scans", "paper", 64), ("gan_scans", "laptop", 16), ("gan_scans", "smoke", 8), ("gan_digits", "paper", 100),
    ("gan_digits", "laptop", 128),  # a pair's own is not lowered
])  # fmt: skip
def test_a_detectors_batch_is_lowered_to_what_the_data_set_has_images_for(experiment, budget, batch):
    assert load(experiment, budget).data.batch_size == batch


def test_a_slow_detector_lowers_the_test_images_of_a_data_set_or_sets_them():
    assert load("gan_mean_scans").data.limits == {"test": 500}
    assert load("gan_mean_scans", "paper").data.limits == {"test": 2000}
    assert load("gan_mean_digits").data.limits == {"test": 500}


def test_a_pair_is_not_lowered_and_the_lowest_of_two_limits_holds(package: Path):
    write(package, "pairs/gan_scans", "budgets: {paper: {data.batch_size: 99}}\n")
    assert load("gan_scans", "paper").data.batch_size == 99
    write(package, "detectors/gan_mean", FILES["detectors/gan_mean"] + "at_most: {data.batch_size: 10}\n")
    assert load("gan_mean_scans").data.batch_size == 10


def test_lists_are_lowered_number_by_number():
    sides = {"data": {"sides": [64, 32], "name": "a"}}
    assert compose._lowered(sides, {"data": {"sides": [48, 48], "name": 3, "other": 1}}) == {
        "data": {"sides": [48, 32], "name": "a"}
    }


def test_the_record_says_what_the_budget_changed():
    assert load("gan_scans").budgets == {"laptop": {"data.batch_size": 16, "detector.iterations": 20}}


@pytest.mark.parametrize(("name", "answer"), [
    ("gan_scnas", "gan is a detector, but there is no data set 'scnas'. Did you mean: 'scans'?"),
    ("gna_scans", "scans is a data set, but there is no detector 'gna'. Did you mean: 'gan'?"),
    ("gann_scanns", "no experiment 'gann_scanns'. Did you mean: 'gan_scans'"),
    ("zzz", "no experiment 'zzz'. `make list` shows all"), ("", "no experiment ''"), ("_", "no experiment '_'"),
    ("../package/detectors/gan", "no experiment"), ("detectors/gan", "no experiment"), ("defaults", "no experiment"),
])  # fmt: skip
def test_a_name_that_is_not_there_is_answered_with_the_closest(name: str, answer: str):
    with pytest.raises(UserError) as refused:
        config.load(name)
    assert answer in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_that_can_be_read_in_two_ways_is_refused(package: Path):
    write(package, "datasets/mean_scans", FILES["datasets/scans"])
    with pytest.raises(UserError, match="can be read as detectors/gan with datasets/mean_scans or detectors/gan_mean"):
        compose.layers_of("gan_mean_scans")


def test_a_whole_file_wins_and_may_extend_a_pair(package: Path):
    write(
        package,
        "gan_scans",
        "# Mine.\nextends: gan_digits\ndata: {root: mine}\nbudgets: {laptop: {data.batch_size: 200}}\n",
    )
    assert names("gan_scans") == [*names("gan_digits"), "gan_scans"]
    assert (load("gan_scans").data.root, load("gan_scans").data.batch_size) == ("mine", 200)
    assert compose.whole_files() == {"gan_scans": "Mine."}


def test_a_whole_file_may_extend_the_bases_of_old(package: Path):
    write(package, "mine", "extends: [_base/gan, _base/scans]\ndetector: {_target_: test_compose.Gan}\n")
    assert names("mine") == ["defaults", "datasets/scans", "mine"]


@pytest.mark.parametrize(("name", "text", "answer"), [
    ("mine", "extends: gan_scnas\n", "mine.yaml: extends: no experiment 'gan_scnas'"),
    ("mine", "extends: mine\n", "which extends this file in turn: remove one of the two"),
    ("mine", "extends: detectors/gna\n", "extends detectors/gna, which does not exist. Did you mean: 'gan'?"),
    ("mine", "extends: other/thing\n", "thing.yaml does not exist, but"),
    ("detectors/gan", "extends: gan_mean\n", "which extends this file in turn: remove one of the two"),
    ("datasets/scans", "extends: digit\n", "extends datasets/digit, which does not exist. Did you mean: 'digits'?"),
    ("detectors/gan", "budgets: 3\n", "gan.yaml: budgets must be a mapping, not 3"),
    ("detectors/gan", "budgets: {paper: [1]}\n", "gan.yaml: budgets.paper must be a mapping, not [1]"),
    ("detectors/gan", "budgets: {papr: {}}\n", "gan.yaml: budgets.papr: unknown budget; the budgets are paper, laptop"),
    ("detectors/gan", "at_most: 3\n", "gan.yaml: at_most must be a mapping, not 3"),
    ("detectors/gan", "a: [1\n", "gan.yaml, line 2: "),
    ("detectors/gan", "- 1\n", "gan.yaml: must contain a mapping of sections, not a list"),
])  # fmt: skip
def test_a_mistake_in_a_file_is_one_line_that_names_it(package: Path, name: str, text: str, answer: str):
    write(package, name, text)
    with pytest.raises(UserError) as refused:
        load("mine" if name == "mine" else "gan_mean_scans")
    assert answer in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_users_folder_is_laid_over_the_packages_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here, chosen = Path("experiments"), tmp_path / "chosen"
    write(here, "datasets/scans", "# My scans.\ndata: {root: here}\nbudgets: {laptop: {data.limits: {test: 9}}}\n")
    write(here, "pairs/gan_scans", "detector: {width: 11}\n")
    write(chosen, "datasets/scans", "data: {root: chosen}\n")
    write(chosen, "detectors/mine", FILES["detectors/gan"])
    monkeypatch.setenv(compose.ENVIRONMENT, str(chosen))
    assert names("gan_scans") == [
        "defaults", "detectors/gan", "datasets/scans", "experiments/datasets/scans", f"{chosen}/datasets/scans",
        "pairs/gan_scans", "experiments/pairs/gan_scans",
    ]  # fmt: skip
    mine = load("gan_scans")
    assert (mine.data.root, mine.data.limits, mine.detector.width, mine.data.batch_size) == (
        "chosen",
        {"test": 9},
        11,
        16,
    )
    assert load("mine_digits").detector.width == 4
    assert set(compose.detectors()) == {"gan", "gan_mean", "mine"}
    assert compose.datasets()["scans"] == ""  # the first line of the most particular file


def test_several_folders_stand_between_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("one", "two"):
        write(tmp_path / name, f"datasets/of_{name}", "data: {root: here}\n")
        write(tmp_path / name, "datasets/scans", f"data: {{root: {name}}}\n")
    monkeypatch.setenv(compose.ENVIRONMENT, os.pathsep.join(str(tmp_path / name) for name in ("one", "two")))
    assert load("gan_scans").data.root == "two"
    assert {"of_one", "of_two"} <= set(compose.datasets())
    (tmp_path / "a:b").mkdir()
    monkeypatch.setenv(compose.ENVIRONMENT, str(tmp_path / "a:b"))  # a folder that has one in its name
    assert compose.folders()[-1] == tmp_path / "a:b"


def test_a_file_for_a_data_set_alone_is_enough(monkeypatch: pytest.MonkeyPatch):
    write(Path("experiments"), "datasets/scans", "data: {root: /data/scans}\n")
    assert load("gan_scans").data.root == "/data/scans"
    assert config.load_data("scans", ["budget=paper"]).data.root == "/data/scans"


def test_a_folder_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(compose.ENVIRONMENT, "nowhere")
    with pytest.raises(UserError, match="nowhere: no such experiments folder"):
        compose.detectors()


def test_in_a_checkout_the_working_directory_adds_nothing(package: Path, monkeypatch: pytest.MonkeyPatch):
    package.rename(package.parent / "experiments")
    monkeypatch.setattr(compose, "package_folder", lambda: package.parent / "experiments")
    monkeypatch.chdir(package.parent)
    monkeypatch.setenv(compose.ENVIRONMENT, "experiments")
    assert compose.folders() == [package.parent / "experiments"]


def test_the_experiments_lie_in_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    assert (compose.package_folder() / "defaults.yaml").is_file()
    checkout = Path(__file__).parents[2] / "experiments"
    assert compose.package_folder().samefile(checkout)  # a link to it


def test_a_study_of_the_users_replaces_the_packages(package: Path):
    write(package, "studies/tables", "title: a\n")
    write(package, "studies/curves", "title: b\n")
    write(Path("experiments"), "studies/tables", "title: c\n")
    assert compose.studies() == {
        "curves": package / "studies/curves.yaml",
        "tables": Path("experiments/studies/tables.yaml"),
    }


def test_data_alone_need_no_detector():
    alone = config.load_data("scans", ["budget=laptop", "data.limits={test: 4}"])
    assert (alone.name, alone.data.batch_size, alone.data.limits, alone.detector) == ("scans", 16, {"test": 4}, None)
    assert list(alone.layers) == ["defaults", "datasets/scans"]
    with pytest.raises(UserError, match="detector: a data set without a detector takes data, seed, runs, budget"):
        config.load_data("scans", ["detector.width=3"])
    with pytest.raises(UserError, match=r"no data set 'scnas'\. Did you mean: 'scans'"):
        config.load_data("scnas")


def test_all_names_are_known_and_tuned_ones_told(package: Path):
    write(package, "mine", "# Mine.\n")
    assert compose.experiments() == sorted(
        ["mine", *(f"{d}_{s}" for d in ("gan", "gan_mean") for s in compose.datasets())]
    )
    tuned = [f"{d}_{s}" for d in compose.detectors() for s in compose.datasets() if compose.is_tuned(d, s)]
    assert set(compose.experiments()) - set(tuned) == {"mine"}
    (package / "pairs" / "gan_digits.yaml").unlink()
    assert not compose.is_tuned("gan_mean", "digits")
    write(package, "gan_mean_digits", "")
    assert compose.is_tuned("gan_mean", "digits")


@pytest.mark.parametrize("text", [
    "a: " + "[" * 100_000,
    "- " * 100_000,
    "? " * 100_000,
    "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40)),
    "a: &a {b: *a}",
    "a: 1\n" * 300_000,
    "a: !!python/object/apply:os.mkdir [canary]",
    "a: !!python/name:os.system",
])  # fmt: skip
def test_a_hostile_file_is_one_line(text: str):
    write(Path("experiments"), "bad", text)
    with pytest.raises(UserError, match=r"bad\.yaml") as refused:
        compose.read(Path("experiments/bad.yaml"))
    assert "\n" not in str(refused.value)
    assert not Path("canary").exists()


def test_anchors_may_be_used():
    write(Path("experiments"), "good", "a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n")
    assert compose.read(Path("experiments/good.yaml")) == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize("value", [
    "${oc.env:HOME}", "a${oc.env:ANOMALY_DATA,${oc.env:HOME}}", "${oc.env:${seed}}", "${oc.decode:x}", "${${a}:HOME}",
    "\\${oc.env:HOME}", "${oc.create:{a: 1}}", "${oc.env:ANOMALY_TRUST}", "${oc.env:ANOMALY_DATAX}", "${ oc.env:HOME}",
])  # fmt: skip
def test_only_keys_and_own_folders_are_interpolated(value: str, monkeypatch: pytest.MonkeyPatch):
    """Whatever is interpolated is written into a record that others see."""
    monkeypatch.setenv("HOME", "secret")
    for node in (value, [value], {"x": [{"y": value}]}, {value: 1}):
        with pytest.raises(UserError, match="takes a key"):
            compose.refuse_resolvers({"root": node})
    compose.refuse_resolvers(
        {"root": "${oc.env:ANOMALY_WEIGHTS,weights}/a", "seed": "${data.sizes[0]}", "cost": "$5 {"}
    )
