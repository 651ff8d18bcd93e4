"""A small run, and its export."""

from pathlib import Path

import pytest
from exported_run import trained

from anomaly_lab.pipeline.export import export_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def export(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export alone, away from its run."""
    return export_run(run, "onnx", str(tmp_path_factory.mktemp("elsewhere") / "export")).folder
