"""What a section may name: checked by package before an import, by base class after."""

import contextlib
import sys

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from anomaly_lab.experiment import schema, trust
from anomaly_lab.types import UserError

ALLOWED = {"EarlyStopping", "LearningRateMonitor", "Timer", "DeviceStatsMonitor", "ModelSummary", "RichProgressBar"}


@pytest.fixture(autouse=True)
def _nobody_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(trust.ENVIRONMENT, raising=False)


@pytest.mark.parametrize(
    "path", ["this.Zen", "antigravity.fly", "anomaly_labs.x.X", "pytorch_lightning_evil.X", "subprocess.Popen"]
)
def test_an_untrusted_package_is_not_imported(path: str) -> None:
    before = {*sys.modules}
    with pytest.raises(UserError, match=r"is not of anomaly_lab, so it was not imported; .* say --trust"):
        schema.locate(path, "detector")
    assert path.rpartition(".")[0] not in {*sys.modules} - before


@pytest.mark.parametrize(("path", "section"), [
    ("anomaly_lab.callbacks.record.Record", "data"),
    ("anomaly_lab.data.datasets.headct.HeadCT", "callbacks.x"),
    ("anomaly_lab.detectors.kde.KDE", "trainer"),
    ("pytorch_lightning.Trainer", "callbacks.x"),
    ("pytorch_lightning.LightningModule", "detector"),
    ("anomaly_lab.types.Case", ""),
    ("anomaly_lab.experiment.run_folder.Path", ""),
])  # fmt: skip
def test_a_class_without_the_sections_base_is_refused(path: str, section: str) -> None:
    with pytest.raises(UserError, match="is not a subclass of"):
        schema.locate(path, section)


def test_lightnings_callbacks_are_allowed_if_they_take_neither_path_nor_function() -> None:
    allowed = set()
    for name in pl.callbacks.__all__:
        with contextlib.suppress(UserError):
            kind = schema.locate(f"pytorch_lightning.callbacks.{name}", "callbacks.x")
            allowed.add(name)
            assert not issubclass(kind, Checkpoint) or kind is Checkpoint
    assert allowed >= ALLOWED
    assert not allowed & {"ModelCheckpoint", "OnExceptionCheckpoint", "LambdaCallback", "SpikeDetection"}


def test_trust_is_of_whole_names_and_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust.ENVIRONMENT, " mydata ,")
    with trust.trusting(["mygan,other", "more.nets"]):
        assert trust.packages() == ("mydata", "mygan", "other", "more.nets")
        for path in ("mygan.Net", "more.nets.Net", "mydata.a.b.Set"):
            trust.refuse_package(path)
        for path in ("mygan2.Net", "more.Net", "more.netsx.Net"):
            with pytest.raises(UserError):
                trust.refuse_package(path)
    assert trust.packages() == ("mydata",)


@pytest.mark.parametrize("word", ["", "a b", "../x", "a..b", "-x"])
def test_what_is_no_package_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="takes the name of a package"):
        trust.trust([word])
