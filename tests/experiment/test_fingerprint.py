"""Fingerprints: what makes two runs the same, and what does not."""

import ast
import inspect
from dataclasses import fields

import pytest

from anomaly_lab import catalogue
from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.detectors.hq_anogan import HQAnoGAN
from anomaly_lab.experiment import config, fingerprint, trust
from anomaly_lab.experiment.fingerprint import DEFAULTS_OF_NEW_KEYS, of_code, of_config

STORE = {"folder": "here", "num_workers": 0, "on_bad": "fail"}
CONFIG = {
    "name": "toy",
    "seed": 0,
    "runs": "runs",
    "budget": "smoke",
    "data": {"_target_": "anomaly_lab.data.datasets.headct.HeadCT", "root": "here", "batch_size": 4, "store": STORE},
    "detector": {"_target_": "anomaly_lab.detectors.fanogan.FAnoGAN", "width": 8},
    "callbacks": {"wandb": {"_target_": "anomaly_lab.callbacks.wandb.WandB"}},
}


def changed(section: str | None = None, **values) -> dict:
    copy = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIG.items()}
    (copy[section] if section else copy).update(values)
    return copy


@pytest.mark.parametrize("same", [
    changed(name="other"), changed(runs="there"), changed("data", root="there"),
    changed("data", store={"num_workers": 2, "folder": "there", "on_bad": "fail"}),
    changed(callbacks={}), changed(start_from="runs/x"),
])  # fmt: skip
def test_names_and_places_do_not_matter(same):
    assert of_config(same) == of_config(CONFIG)


@pytest.mark.parametrize("other", [
    changed(seed=1), changed(budget="paper"), changed("data", batch_size=8), changed("detector", width=4),
    changed(callbacks={"fakepool": {"_target_": "x.Y", "every": 5}}),
])  # fmt: skip
def test_what_moves_a_score_matters(other):
    assert of_config(other) != of_config(CONFIG)


def test_a_record_without_a_key_that_came_later_means_its_default():
    assert of_config(changed(evaluation={})) == of_config(changed(evaluation={"threshold": "normal_quantile"}))
    assert of_config(changed(evaluation={})) != of_config(changed(evaluation={"threshold": "test_max_f1"}))


def test_the_run_it_starts_from_matters_and_the_config_is_left_alone():
    before = changed()
    assert len({of_config(CONFIG), of_config(CONFIG, "a"), of_config(CONFIG, "b")}) == 3
    assert before == CONFIG


def test_a_class_that_moved_is_the_same_class():
    assert of_config(changed("data", _target_="anomaly_lab.data.headct.HeadCT")) == of_config(CONFIG)


def test_what_a_callback_declares_decides_whether_it_matters():
    """Health only shows; a foreign callback that says nothing may do anything."""
    shown = changed(callbacks={"health": {"_target_": "anomaly_lab.callbacks.health.Health", "watched": 9}})
    assert of_config(shown) == of_config(changed(callbacks={}))
    pool = changed(callbacks={"pool": {"_target_": "anomaly_lab.callbacks.fakepool.FakePool"}})
    assert of_config(pool) != of_config(changed(callbacks={}))
    stranger = changed(callbacks={"timer": {"_target_": "pytorch_lightning.callbacks.Timer"}})
    assert of_config(stranger) != of_config(changed(callbacks={}))


FILES = {
    "pipeline/training.py": "from anomaly_lab.data import batches\nfrom anomaly_lab.types import Case",
    "pipeline/warm_start.py": "",
    "pipeline/evaluate.py": "from anomaly_lab.metrics.thresholds import quantile\ndef evaluate(): return quantile()",
    "pipeline/engine.py": "import anomaly_lab.reports.run_report",
    "reports/run_report.py": "",
    "metrics/thresholds.py": 'def quantile():\n    """Of normals."""\n    return 0.95',
    "types.py": "class Case: pass",
    "data/batches.py": "SIZE = 8  # images",
    "losses/gan.py": "def loss(x):\n    return x",
    "detectors/one.py": "from anomaly_lab.losses import gan\nfrom anomaly_lab.losses.gan import loss\nimport torch",
    "detectors/two.py": "",
    "data/datasets/set.py": "from anomaly_lab.data.twins.set import write_twin",
    "data/twins/set.py": "def write_twin(): pass",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package of the real one's shape; what was hashed of it is forgotten with it."""
    root = tmp_path / "anomaly_lab"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(fingerprint, "PACKAGE", root)
    yield root
    fingerprint._module.cache_clear()


def codes(detector: str = "anomaly_lab.detectors.one.One", **callbacks: str) -> dict[str, str]:
    fingerprint._module.cache_clear()
    return of_code({
        "detector": {"_target_": detector},
        "data": {"_target_": "anomaly_lab.data.datasets.set.Set"},
        "callbacks": {name: {"_target_": target} for name, target in callbacks.items()},
    })  # fmt: skip


def edited(package, name: str, old: str, new: str) -> set[str]:
    """Purposes whose code is another after an edit."""
    before = codes()
    text = (package / name).read_text()
    assert old in text
    (package / name).write_text(text.replace(old, new))
    after = codes()
    return {purpose for purpose in before if before[purpose] != after[purpose]}


@pytest.mark.parametrize(("name", "old", "new", "changed_purposes"), [
    ("losses/gan.py", "return x", "return -x", {"training"}),
    ("data/batches.py", "SIZE = 8", "SIZE = 16", {"training"}),
    ("types.py", "pass", "id = 1", {"training"}),
    ("pipeline/training.py", "import Case", "import Case as Scan", {"training"}),
    ("metrics/thresholds.py", "0.95", "0.9", {"evaluation"}),
    ("pipeline/evaluate.py", "return quantile()", "return -quantile()", {"evaluation"}),
    # documentation, comments and layout
    ("metrics/thresholds.py", "Of normals.", "Of validation normals.", set()),
    ("data/batches.py", "# images", "# images of a mini-batch", set()),
    ("losses/gan.py", "def loss(x):\n    return x", "\n\ndef loss(x): return x  # eq. 1", set()),
    # what no number depends on
    ("detectors/two.py", "", "x = 1", set()),
    ("reports/run_report.py", "", "x = 1", set()),
    ("data/twins/set.py", "pass", "return 1", set()),
])  # fmt: skip
def test_code_is_followed_from_the_entry_points(package, name, old, new, changed_purposes):
    if name == "pipeline/training.py":  # an import's local name is visible in the code that uses it, if it is used
        new += "\nScan()"
    assert edited(package, name, old, new) == changed_purposes


def test_renaming_a_module_changes_nothing(package):
    before = codes()
    (package / "losses" / "gan.py").rename(package / "losses" / "adversarial.py")
    one = package / "detectors" / "one.py"
    one.write_text(
        "import torch\nfrom anomaly_lab.losses.adversarial import loss\nfrom anomaly_lab.losses import adversarial"
    )
    one.rename(package / "detectors" / "first.py")
    assert codes("anomaly_lab.detectors.first.One") == before


def test_another_package_in_an_import_matters(package):
    before = codes()
    one = package / "detectors" / "one.py"
    one.write_text(one.read_text().replace("import torch", "import numpy"))
    assert codes()["training"] != before["training"]


def test_the_real_package_is_followed_where_it_should_be():
    """Every module whose edit was once overlooked is reached, and those that only show are not."""
    reached = {purpose: modules_of(purpose) for purpose in ("training", "evaluation")}
    for name in ("evaluation.stitching", "evaluation.scores", "evaluation.baselines.fitted", "evaluation.protocol",
                 "metrics.thresholds", "pipeline.evaluate", "experiment.config", "experiment.schema"):  # fmt: skip
        assert f"anomaly_lab.{name}" in reached["evaluation"]
    assert "anomaly_lab.experiment.schema" in reached["training"]
    assert "anomaly_lab.data.splitting.rows" in reached["training"]
    for name in ("callbacks.checkpoints", "callbacks.wandb", "reports.run_report", "studies.plan", "pipeline.engine"):
        assert f"anomaly_lab.{name}" not in reached["training"] | reached["evaluation"]


def test_what_a_module_finds_in_its_own_room_is_followed():
    """Baselines are imported by nobody; the callbacks that a message names are none of the code that trains."""
    reached = modules_of("evaluation")
    baselines = {path.stem for path in (fingerprint.PACKAGE / "evaluation" / "baselines").glob("[!_]*.py")}
    assert {f"anomaly_lab.evaluation.baselines.{name}" for name in baselines} <= reached
    assert "anomaly_lab.networks.places" in reached


def test_an_edit_of_what_is_found_is_noticed(package):
    (package / "metrics" / "thresholds.py").write_text(
        "from anomaly_lab import catalogue\n\nFOUND = catalogue.classes('anomaly_lab.metrics')\n"
        "FOREIGN = catalogue.classes('anomaly_lab.data')\ndef quantile(): return 0.95\n"
    )
    (package / "metrics" / "ranks.py").write_text("x = 1")
    assert edited(package, "metrics/ranks.py", "x = 1", "x = 2") == {"evaluation"}
    assert edited(package, "data/batches.py", "SIZE = 8", "SIZE = 16") == {"training"}


def modules_of(purpose: str) -> set[str]:
    """Modules of the package that a purpose's code is hashed from."""
    fingerprint._module.cache_clear()
    seen: set[str] = set()
    real = fingerprint._file

    def noting(module):
        if real(module):
            seen.add(module)
        return real(module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "_file", noting)
        fingerprint._code(set(fingerprint.ENTRY_POINTS[purpose]))
    fingerprint._module.cache_clear()
    return seen


@pytest.mark.parametrize(
    ("section", "kind", "first"),
    [
        ("evaluation", config.Evaluation, {"purpose", "replicates", "case_score", "top_k"}),
        ("score", config.ScoreRule, {"source", "smooth", "sign", "standardise", "normals", "pool", "top"}),
    ],
)
def test_a_setting_that_older_runs_lack_does_not_make_them_another_run(
    section: str, kind: type, first: set[str]
) -> None:
    """Of each key that came after the section's first run folders it is known what its absence means."""
    older = {"score": {"source": "map"}, "evaluation": {}}
    for name in {field.name for field in fields(kind)} - first:
        value = getattr(kind(), name)
        assert DEFAULTS_OF_NEW_KEYS[f"{section}.{name}"] == value
        assert of_config({**older, section: {**older[section], name: value}}) == of_config(older)


@pytest.mark.parametrize("name", ["augment_p", "anneal"])
def test_a_setting_that_older_runs_of_a_detector_lack_does_not_make_them_another_run(name: str) -> None:
    value = inspect.signature(HQAnoGAN).parameters[name].default
    older = {"_target_": f"{HQAnoGAN.__module__}.HQAnoGAN", "lr_gan": 0.002}
    assert of_config({"detector": {**older, name: value}}) == of_config({"detector": older})
    assert of_config({"detector": {**older, name: 0.5}}) != of_config({"detector": older})


@pytest.mark.parametrize("is_package", [True, False])
def test_a_package_of_the_users_own_is_followed(tmp_path, monkeypatch, is_package):
    """Else a study would take runs for the present ones although their detector was edited."""

    def code(text: str) -> str:
        place = tmp_path / ("mine/det.py" if is_package else "mine.py")
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
        fingerprint._trusted.cache_clear()
        return fingerprint.of_code({"detector": {"_target_": f"mine{'.det' * is_package}.Mine"}})["training"]

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(trust.ENVIRONMENT, "other, mine")
    text = 'from anomaly_lab.detectors.ganomaly import GANomaly\n\nclass Mine(GANomaly):\n    """Mine."""\n    x = 1\n'
    before = code(text)
    assert code(text.replace("Mine.", "My own.")) == before
    assert code(text.replace("x = 1", "x = 1000")) != before
    assert code(text) == before
    if is_package:
        (tmp_path / "mine" / "nets.py").write_text("width = 3\n")
        assert code(text) != before
    own = fingerprint._trusted("mine", ("mine",))
    fingerprint._trusted.cache_clear()
    monkeypatch.setattr(fingerprint, "_imported", lambda line: f"{line}, edited")
    assert fingerprint._trusted("mine", ("mine",)) != own  # what it imports of this package
    assert fingerprint._trusted("mine_too", ("mine",)) is None
    fingerprint._trusted.cache_clear()


def test_what_is_imported_for_types_alone_is_no_code() -> None:
    """It never runs, and is the only import that may go in circles."""
    body = "from typing import TYPE_CHECKING\n"
    imports: list[set[str]] = [set(), set()]
    plain, typed = (
        fingerprint._Content("m", found).visit(ast.parse(body + more))
        for found, more in zip(imports, ("", "if TYPE_CHECKING:\n    from anomaly_lab.api import train\n"), strict=True)
    )
    assert ast.dump(plain) == ast.dump(typed)
    assert imports[0] == imports[1]


def test_every_callback_tells_alike_read_or_imported() -> None:
    """Who compares runs reads the files, so that torch and Lightning need not be imported."""
    found = catalogue.classes("anomaly_lab.callbacks").items()
    callbacks = {name: kind for name, kind in found if issubclass(kind, RunCallback) and kind is not RunCallback}
    assert len(callbacks) > 10
    for name, kind in callbacks.items():
        assert fingerprint.changes_scores(f"{kind.__module__}.{name}") == kind.changes_scores
