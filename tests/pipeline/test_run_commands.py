"""What is done with a trained run; what each command makes of it is tested where it is made."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline.conftest import settings

from anomaly_lab.pipeline import engine, launchers, run_commands
from anomaly_lab.pipeline.launchers import Launch
from anomaly_lab.pipeline.predict import Request
from anomaly_lab.types import FailedElsewhereError, UserError

COMMANDS: dict[str, Callable[[Path], object]] = {
    "data": lambda place: engine.inspect(settings(place)),
    "evaluate": lambda place: run_commands.evaluate(str(place)),
    "evaluate all": lambda place: run_commands.evaluate_all(str(place)),
    "rank_scores": lambda place: run_commands.rank_scores(str(place)),
    "quality": lambda place: run_commands.quality(str(place)),
    "report": lambda place: run_commands.report(str(place)),
    "card": lambda place: run_commands.card(str(place)),
    "predict": lambda place: run_commands.predict(str(place), Request(place)),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_work_of_one_process_is_refused_in_several(name: str, tmp_path: Path, monkeypatch) -> None:
    """The first says so; the others end, so that it is said once."""
    launched = {rank: Launch("mpirun", rank, 2, rank, 2) for rank in range(2)}
    monkeypatch.setattr(launchers, "launched", lambda: launched[0])
    with pytest.raises(UserError, match="is the work of one process, but mpirun started 2"):
        COMMANDS[name](tmp_path)
    monkeypatch.setattr(launchers, "launched", lambda: launched[1])
    with pytest.raises(FailedElsewhereError):
        COMMANDS[name](tmp_path)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("data", "evaluate all")])
def test_a_folder_that_is_no_run_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        COMMANDS[name](tmp_path)


def test_a_checkpoint_is_one_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a checkpoint is one run's"):
        run_commands.evaluate_all(str(tmp_path), checkpoint="00000010")
