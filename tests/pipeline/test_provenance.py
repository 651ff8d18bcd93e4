"""What the record says of a run before it begins."""

from pathlib import Path

from data.conftest import write_headct
from pipeline.conftest import settings

from anomaly_lab.data.datasets.headct import LEAKS
from anomaly_lab.pipeline.provenance import provenance, published
from anomaly_lab.pipeline.training import construct

SWITCH = "callbacks.best_test_epoch={_target_: anomaly_lab.callbacks.best_test_epoch.BestTestEpoch}"


def test_it_says_what_runs_on_what(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    config = settings(tmp_path)
    data, detector = construct(config)
    data.setup()
    facts = provenance(config, data, detector, {"weights": "w.pth"}, None)
    assert (facts["experiment"], facts["budget"], facts["source"], facts["seed"]) == (config.name, "smoke", "real", 0)
    assert facts["detector"]["phases"] == {"gan": 10, "encoder": 10}
    assert facts["detector"]["parameters"]["critic"] == sum(p.numel() for p in detector.critic.parameters())
    assert facts["detector"]["begun_with"] == {"weights": "w.pth"}
    assert facts["detector"]["caveats"] == [LEAKS]  # of random splits of Head-CT, and no other
    assert set(facts["code"]) == {"training", "evaluation"}
    assert "started_from" not in facts
    assert facts["versions"]["torch"]


def test_every_switch_and_every_borrowed_caveat_is_owned_up_to(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    config = settings(tmp_path, SWITCH, "evaluation.threshold=test_max_f1")
    data, detector = construct(config)
    data.setup()
    facts = provenance(config, data, detector, {}, {"run": "x", "caveats": ["callbacks.other: chosen"]})
    caveats = facts["detector"]["caveats"]
    assert [caveat.partition(":")[0] for caveat in caveats] == [
        "data.protocol=random", "evaluation.threshold=test_max_f1", "callbacks.best_test_epoch", "callbacks.other",
    ]  # fmt: skip
    assert facts["started_from"]["run"] == "x"


def test_what_the_publications_budget_would_take(tmp_path: Path) -> None:
    config = settings(tmp_path, "detector.gan_iterations=3", "detector.encoder_iterations=2")
    found = published(config)
    assert found["phases"] == {"gan": 3, "encoder": 2}
    assert found["estimated_seconds"] >= 0
