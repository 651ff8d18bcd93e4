"""A record that says something else than readers rely on is refused in one line, which names the key."""

import json
import shutil
from pathlib import Path

import pytest

from anomaly_lab.experiment import record
from anomaly_lab.types import UserError

OLD = Path(__file__).parents[1] / "e2e" / "run_of_older_code"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A record of an older version."""
    for name in ("provenance.json", "metrics.json"):
        shutil.copy(OLD / name, tmp_path)
    return tmp_path


def put(path: Path, key: str, value: object) -> None:
    """Set the value at a dotted key of a JSON file."""
    content = json.loads(path.read_text())
    *above, last = key.split(".")
    within = content
    for part in above:
        within = within.setdefault(part, {})
    within[last] = value
    path.write_text(json.dumps(content))


def test_records_of_older_versions_are_read(run: Path) -> None:
    assert record.read_provenance(run, needs=("data.fingerprint", "code"))["source"] == "twin"
    assert record.read_metrics(run, needs=("unit.rule", "threshold.value"))["baselines"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("data", None), ("data", "x"), ("data.counts.train", []), ("data.counts.train.normal", -1), ("data.root", 3),
     ("source", "x"), ("threads", 0), ("threads", 10**6), ("threads", True), ("code", 3), ("detector.phases.gan", 1.5),
     ("detector.caveats", "x"), ("detector.caveats", [1]), ("seconds", [1]), ("seconds", {"gan": "x"}), ("resumed", {}),
     ("finished", 3), ("data.skipped", [1]), ("data.audit.identical", [{"ids": ["a"]}]), ("checkpoint.iteration", "4"),
     ("data.bits", 7), ("seed", 10**40), ("peak_gb", {"ram": []})],
)  # fmt: skip
def test_a_provenance_of_another_kind_is_refused(run: Path, key: str, value: object) -> None:
    put(run / "provenance.json", key, value)
    with pytest.raises(UserError, match=rf"provenance\.json is damaged \({key.split('.')[0]}.* copy of the") as said:
        record.read_provenance(run)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("threshold", 1), ("threshold.value", "1"), ("detector.auroc.value", []), ("detector", None), ("unit.rule", "x"),
     ("unit.top_k", 0), ("counts.test", 3), ("trivial", {"all_normal": 1}), ("versus_baselines.difference", 1),
     ("bootstrap.level", 2)],
)  # fmt: skip
def test_metrics_of_another_kind_are_refused(run: Path, key: str, value: object) -> None:
    put(run / "metrics.json", key, value)
    with pytest.raises(UserError, match=rf"metrics\.json is damaged \({key.split('.')[0]}.* make evaluate"):
        record.read_metrics(run)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "[" * 100_000])
def test_what_is_no_json_is_refused(run: Path, text: str) -> None:
    (run / "metrics.json").write_text(f'{{"threshold": {{"value": {text}}}}}')
    with pytest.raises(UserError, match=r"metrics\.json cannot be read"):
        record.read_metrics(run)


def test_what_a_command_cannot_do_without_is_named(run: Path) -> None:
    (run / "provenance.json").write_text("{}")
    with pytest.raises(UserError, match="it lacks code"):
        record.read_provenance(run, needs=("code",))
    (run / "metrics.json").unlink()
    assert record.read_metrics(run, needs=("unit.rule",)) == {}
    (run / "metrics.json").mkdir()
    with pytest.raises(UserError, match="it is no file"):
        record.read_metrics(run)
