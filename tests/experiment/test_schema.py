"""Schemas from signatures: sections that are dataclasses, ranges in types, and keys of old."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from omegaconf import DictConfig, OmegaConf

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.experiment import compose, config, schema
from anomaly_lab.types import Range, Rate, UserError

pytestmark = pytest.mark.usefixtures("trusted_toys")


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Range("[1, 9]")] = 3
    edges: tuple[float, float] | None = None
    either: tuple[float, float] | Literal["auto"] | None = None

    def __post_init__(self) -> None:
        if self.edges and self.edges[0] > self.edges[1]:
            raise ValueError("edges: the first is\nthe shorter")


INNER = Inner(size=5)


class Outer:
    def __init__(self, inner: Inner = INNER, maybe: Inner | None = None, lr: Rate | None = None) -> None:
        self.inner, self.maybe, self.lr = inner, maybe, lr


def checked(**values: Any):
    return schema.checked("data", OmegaConf.create({"_target_": f"{__name__}.Outer", **values}))


def as_plain(node: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(node)
    return plain


def complaint(**values: Any) -> str:
    with pytest.raises(UserError) as refused:
        schema.refuse_impossible("data.", Outer, as_plain(checked(**values)))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_section_has_its_defaults_those_of_the_signature():
    assert checked() == {
        "_target_": f"{__name__}.Outer", "inner": {"size": 5, "edges": None, "either": None}, "maybe": None, "lr": None,
    }  # fmt: skip
    assert checked(maybe={"edges": [1, 2]}).maybe == {"size": 3, "edges": (1.0, 2.0), "either": None}


def test_a_class_gets_an_instance_of_its_section():
    built = config.build(checked(inner={"edges": [1, 2]}, maybe={"either": [1, 2]}))
    assert (built.inner, built.maybe) == (Inner(size=5, edges=(1.0, 2.0)), Inner(either=(1, 2)))
    plain = OmegaConf.create({"_target_": f"{__name__}.Outer", "inner": {"edges": [1, 2]}})  # as a study has it
    assert config.build(plain).inner == Inner(edges=(1, 2))


@pytest.mark.parametrize(("values", "answer"), [
    ({"inner": {"siez": 3}}, "data.inner.siez: Key 'siez' not in 'Inner'. Did you mean: 'size'?"),
    ({"inner": {"zzz": 3}}, "data.inner.zzz: Key 'zzz' not in 'Inner'. Valid keys: size, edges, either"),
    ({"maybe": {"siez": 3}}, "data.maybe.siez: Key 'siez' not in 'Inner'. Did you mean: 'size'?"),
    ({"zzz": 3}, "Valid keys: _target_, inner, maybe, lr"),
    ({"inner": [1]}, "data.inner: must be a section, inner.<name>=…, not a list"),
    ({"inner": None}, "data.inner: field 'inner' is not Optional"),
    ({"inner": {"edges": {"a": 1}}}, "data.inner.edges: "),
    ({"inner": {"size": "a"}}, "data.inner.size: Value 'a' of type 'str' could not be converted to Integer"),
    ({"inner": {"size": 0}}, "data.inner.size=0: takes a number in [1, 9]"),
    ({"maybe": {"size": 10}}, "data.maybe.size=10: takes a number in [1, 9]"),
    ({"maybe": {"edges": [2, 1]}}, "data.maybe: edges: the first is the shorter"),
    ({"lr": 0.0}, "data.lr=0.0: takes a number in (0, 1]"),
])  # fmt: skip
def test_what_a_section_does_not_take_is_one_line_that_names_the_key(values: dict[str, Any], answer: str):
    assert answer in complaint(**values)


TYPOS = {  # of a key in each section
    "cut": ("overlp", "overlap"),
    "augment": ("gama", "gamma"),
    "volume": ("windw", "window"),
    "limits": ("tran", "train"),
    "split": ("train_normls", "train_normals"),
    "twin": ("sede", "seed"),
    "store": ("fodler", "folder"),
    "picture": ("fti", "fit"),
}


def test_every_section_of_the_data_module_is_tried_below():
    parameters = schema._parameters(PatchDataModule)
    assert {name for name in parameters if schema._section(parameters[name].annotation)} == set(TYPOS)


@pytest.mark.parametrize("section", TYPOS)
@pytest.mark.parametrize("experiment", ["fanogan_headct", "fanogan_nifti"])  # with and without values of its own
def test_a_typo_in_a_section_of_the_data_is_answered(section: str, experiment: str):
    typed, meant = TYPOS[section]
    with pytest.raises(UserError) as refused:
        config.load(experiment, ["budget=smoke", f"data.{section}.{typed}=1"])
    assert f"data.{section}.{typed}: Key" in str(refused.value)
    assert f"Did you mean: '{meant}'" in str(refused.value)


@pytest.mark.parametrize(("override", "answer"), [
    ("evaluation.quantile=2", "evaluation.purpose=2: takes rule_in, screening, rule_out, or a number in (0, 1)"),
    ("evaluation.purpose=nan", "evaluation.purpose=nan: takes"),
    ("evaluation.purpose=screning", "evaluation.purpose=screning: takes rule_in, screening"),
    ("evaluation.replicates=0", "evaluation.replicates=0: takes"),
    ("seed=-1", "seed=-1: takes a number in [0, 4294967295]"),
    ("detector.width=0", "detector.width=0: takes"),
    ("detector.width=1000000000", "detector.width=1000000000: takes"),
    ("detector.latent_dim=0", "detector.latent_dim=0: takes"),
    ("detector.gan_iterations=0", "detector.gan_iterations=0: takes"),
    ("detector.lr_gan=inf", "detector.lr_gan=inf: takes"),
    ("callbacks.record.every=0", "callbacks.record.every=0: takes"),
    ("callbacks.record=[1]", "callbacks.record: must be a section"),
    ("callbacks=[1]", "callbacks: must be a section"),
    ("callbacks.new=3", "callbacks.new: there is no such callback"),
    ("data=[1]", "data: must be a section"),
    ("data.patch_size=[33,33]", "detector.patch_size=(33, 33): takes two equal sides, a power of two from 32"),
    ("data.patch_size=[3,4,5]", "detector.patch_size: TupleConfig length 3 does not match"),
    ("data.patch_size=[0,4]", "data.patch_size=(0, 4): takes"),
    ("data.in_channels=2", "data.in_channels: Invalid value '2', expected one of [1, 3]"),
    ("data.split={folds: 3, fold: 5}", "data.split: fold=5 of folds=3"),
    ("data.volume={zscore: 3, window: [40, 80]}", "data.volume: window, zscore and percentiles exclude each other"),
    ("data.augment.flip=[1,0]", "data.augment.flip=[1, 0]: takes a number in [0, 1], or a list of 3"),
    ("data.limits.train=0", "data.limits.train=0.0: takes"),
    ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0: takes"),
    ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1: takes"),
    ("detector._target_=..a", "'..a' is not the dotted path of a class"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused_before_the_training(override: str, answer: str):
    with pytest.raises(UserError) as refused:
        config.load("fanogan_headct", ["budget=smoke", override])
    assert answer in str(refused.value)
    assert "\n" not in str(refused.value)


def test_ints_are_taken_for_numbers_and_lists_where_several_are_allowed():
    data = config.load(
        "fanogan_dicom", ["budget=smoke", "data.volume.window=[40, 80]", "data.augment.flip=[1,0,0]"]
    ).data
    assert (list(data.volume.window), list(data.augment.flip)) == ([40, 80], [1, 0, 0])


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]):
    compose._tell.cache_clear()
    return lambda: capsys.readouterr().err.splitlines()


def test_every_key_of_old_is_found_under_its_new_name(told):
    old = {
        "evaluation.quantile": 0.9,
        "data.splits": "a.csv", "data.train_normals": 9.0, "data.val_fraction": 0.2, "data.folds": 4, "data.fold": 1,
        "data.contamination": 0.1, "data.twin_seed": 2, "data.twin_size": 30, "data.resize": (8, 8),
        "data.fit": "stretch", "data.store": False, "data.store_dir": "there", "data.on_bad": "skip",
        "data.num_workers": 2, "data.scoring_batch_size": 5,
    }  # fmt: skip
    assert set(old) == set(schema.KEYS)
    words = [f"{key}={list(value) if isinstance(value, tuple) else value}" for key, value in old.items()]
    loaded = config.load("kde_headct", ["budget=smoke", *words])
    assert {key: OmegaConf.select(loaded, schema.KEYS[key]) for key in old} == old
    lines = told()
    assert len(lines) == len(old)
    assert "data.twin_size is now data.twin.size; the old name will be removed in the next release" in lines


def test_each_old_key_is_told_once(told):
    for _ in range(2):
        config.load("kde_headct", ["budget=smoke", "data.twin_size=30"])
    assert len(told()) == 1


def test_old_and_new_keys_of_a_section_go_together_and_new_ones_win():
    words = [
        "data.store=false",
        "data.store_dir=there",
        "data.store.num_workers=3",
        "data.twin={seed: 4}",
        "data.twin_size=9",
    ]
    data = config.load("kde_headct", ["budget=smoke", *words]).data
    assert (data.store.enabled, data.store.folder, data.store.num_workers) == (False, "there", 3)
    assert (data.twin.seed, data.twin.size) == (4, 9)
    both, _ = schema.in_current_keys({"data": {"twin_size": 1, "twin": {"size": 2}}})
    assert both == {"data": {"twin": {"size": 2}}}


def test_an_experiment_file_of_old_is_understood_budgets_included(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told
):
    monkeypatch.chdir(tmp_path)
    Path("experiments").mkdir()
    Path("experiments/mine.yaml").write_text(
        "# Mine.\nextends: [_base/gan, _base/headct]\ndata: {train_normals: 50, fit: stretch}\n"
        "detector: {_target_: anomaly_lab.detectors.kde.KDE}\n"
        "budgets: {smoke: {data.twin_size: 90, data.limits: {val: 5}}}\n"
    )
    data = config.load("mine", ["budget=smoke"]).data
    assert (data.split.train_normals, data.picture.fit, data.twin.size, data.limits.val) == (50, "stretch", 90, 5)
    assert sorted(line.split()[0] for line in told()) == ["data.fit", "data.train_normals", "data.twin_size"]


def test_the_config_of_an_older_run_is_recalled_without_a_word(told):
    older = Path(__file__).parents[1] / "e2e" / "run_of_older_code" / "config.yaml"
    data = config.recall(older).data
    assert (data.split.train_normals, data.twin.size, data.store.enabled, data.volume) == (20, 60, True, None)
    assert data._target_ == "anomaly_lab.data.datasets.headct.HeadCT"
    assert (data.protocol, data.group) == ("random", "patient")  # as it was then
    assert told() == []
