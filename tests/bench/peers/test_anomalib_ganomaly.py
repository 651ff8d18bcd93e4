"""anomalib's contender keeps the protocol: spoken to as the benchmark does, with a stand-in for anomalib."""

import sys
from pathlib import Path

import pytest

from anomaly_lab.bench.peer import PEERS, Contender

STAND_IN = {
    "__init__.py": "",
    "data.py": """
from dataclasses import dataclass
from typing import Any

@dataclass
class ImageBatch:
    image: Any
""",
    "pre_processing.py": """
class PreProcessor:
    def __init__(self, transform):
        self.transform = transform
""",
    "models.py": """
import sys
from torch import nn

class Ganomaly(nn.Module):
    def __init__(self, batch_size, pre_processor, evaluator, visualizer):
        super().__init__()
        assert batch_size == 64
        self.model = nn.Module()
        self.model.generator = nn.Sequential(nn.Conv2d(1, 2, 4, padding=4), nn.Conv2d(2, 1, 3, padding=1))
        self.model.discriminator = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        paddings = [layer.padding for layer in self.model.generator]
        print("step", batch_idx, tuple(batch.image.shape), paddings, file=sys.stderr)
""",
    "engine.py": """
import sys

class Engine:
    def __init__(self, **arguments):
        print("engine", arguments["precision"], arguments["accelerator"], file=sys.stderr)

    def fit(self, model, train_dataloaders):
        for batch_idx, batch in enumerate(train_dataloaders):
            model.training_step(batch, batch_idx)
""",
}


@pytest.fixture
def anomalib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of that name and version, found before all others."""
    for name, code in STAND_IN.items():
        (tmp_path / "anomalib" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "anomalib" / name).write_text(code)
    (tmp_path / "anomalib-9.8.7.dist-info").mkdir()
    (tmp_path / "anomalib-9.8.7.dist-info" / "METADATA").write_text("Name: anomalib\nVersion: 9.8.7\n")
    return tmp_path


RUN = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "padding"), [(("32-true",), 4), (("bf16-mixed", "1"), 1)])
def test_it_trains_anomalibs_model_in_turns(anomalib: Path, arguments: tuple[str, ...], padding: int) -> None:
    words = [sys.executable, "-c", RUN, str(anomalib), str(PEERS / "anomalib_ganomaly.py"), *arguments]
    with Contender("anomalib", words) as started:
        hello = started.answer()
        assert hello["version"] == "9.8.7"
        assert hello["weights"] == {"generator": 34 + 19, "discriminator": 4}
        for steps in (1, 2):
            assert started.turn(steps).keys() == {"step", "training", "peak_gb"}
        started._log.seek(0)
        said = started._log.read()
    assert f"engine {arguments[0]} cpu" in said
    assert said.count("step ") == 3
    assert f"step 2 (64, 3, 64, 64) [({padding}, {padding}), (1, 1)]" in said
