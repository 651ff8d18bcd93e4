"""Our contender, spoken to as the benchmark does; at 32×32 and two images, so that a step is quick."""

import os
import sys
from pathlib import Path

import pytest

from anomaly_lab.bench.peer import Contender
from anomaly_lab.detectors.ganomaly import GANomaly

SMALL = """
import sys
from anomaly_lab.bench import pace
pace.BATCH = (2, 3, 32, 32)
from anomaly_lab.bench.ganomaly import main
main(*sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "precision"), [("anomalib", "32-true"), ("official", "bf16-mixed")])
def test_it_trains_ganomaly_in_turns(
    variant: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    published = GANomaly((32, 32), in_channels=3)
    sizes = {
        name: sum(weight.numel() for weight in network.parameters())
        for name, network in (("generator", published.reconstructor), ("discriminator", published.discriminator))
    }
    with Contender("ours", [sys.executable, "-c", SMALL, variant, precision]) as contender:
        hello = contender.answer()
        assert hello["weights"] == sizes
        assert hello["threads"] == int(os.environ.get("OMP_NUM_THREADS", hello["threads"]))
        for steps in (1, 2):
            assert contender.turn(steps).keys() == {"step", "training", "peak_gb"}
    assert list(tmp_path.iterdir()) == []
