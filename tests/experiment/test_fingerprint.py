"""Fingerprints: what makes two runs the same, and what does not."""

import pytest

from anomaly_lab.experiment import fingerprint
from anomaly_lab.experiment.fingerprint import of_code, of_config

CONFIG = {
    "name": "toy",
    "seed": 0,
    "runs": "runs",
    "budget": "smoke",
    "data": {"_target_": "anomaly_lab.data.datasets.headct.HeadCT", "root": "here", "batch_size": 4},
    "detector": {"_target_": "anomaly_lab.detectors.fanogan.FAnoGAN", "width": 8},
    "callbacks": {"wandb": {"_target_": "anomaly_lab.callbacks.wandb.WandB"}},
}


def changed(section: str | None = None, **values) -> dict:
    copy = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIG.items()}
    (copy[section] if section else copy).update(values)
    return copy


@pytest.mark.parametrize("same", [
    changed(name="other"), changed(runs="there"), changed("data", root="there"), changed("data", num_workers=2),
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


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of four files: the detector imports a loss, another detector and the report stand beside."""
    root = tmp_path / "anomaly_lab"
    files = {
        "pipeline/engine.py": "import anomaly_lab.report",
        "report.py": "",
        "losses/gan.py": "",
        "detectors/one.py": "from anomaly_lab.losses import gan",
        "detectors/two.py": "",
        "data/set.py": "",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(fingerprint, "PACKAGE", root)
    return root


def code_after(package, name: str | None) -> str:
    fingerprint._read.cache_clear()
    fingerprint._imported.cache_clear()
    if name:
        (package / name).write_text((package / name).read_text() + "\n# changed")
    target = {
        "detector": {"_target_": "anomaly_lab.detectors.one.One"},
        "data": {"_target_": "anomaly_lab.data.set.Set"},
    }
    return of_code(target)


@pytest.mark.parametrize(("name", "matters"), [
    ("detectors/one.py", True), ("losses/gan.py", True), ("data/set.py", True), ("pipeline/engine.py", True),
    ("detectors/two.py", False), ("report.py", False),
])  # fmt: skip
def test_only_code_that_scores_depend_on_matters(package, name, matters):
    assert (code_after(package, None) != code_after(package, name)) == matters
