"""`anomaly_lab.load` takes runs and exports; which of them it is shows before torch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

import anomaly_lab as al
from anomaly_lab.types import UserError


def test_what_is_neither_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        al.load(tmp_path)
    with pytest.raises(UserError, match=r"export\.json is missing"):
        al.load(tmp_path / "model.onnx")
    with pytest.raises(UserError, match="not a run folder"):
        al.load(al.Run(tmp_path))
    assert "load" in dir(al)


def test_a_run_without_torch_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys, anomaly_lab\nsys.modules['torch'] = None\n"
        "try:\n    anomaly_lab.load(sys.argv[1])\nexcept anomaly_lab.types.UserError as error:\n    print(error)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert ran.returncode == 0, ran.stderr
    assert f"{tmp_path} is no export, and a run needs the package torch" in ran.stdout


def test_an_export_is_told_from_a_run_without_torch(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text("{}")
    program = (
        "import sys, anomaly_lab\n"
        "try:\n    anomaly_lab.load(sys.argv[1])\n"
        "except anomaly_lab.types.UserError as error:\n    print(error)\n"
        "assert not {'torch', 'monai', 'omegaconf', 'scipy', 'cv2'} & sys.modules.keys()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert ran.returncode == 0, ran.stderr
    assert "export.json cannot be read (it is of version None" in ran.stdout
