"""The strategy of several processes begins with one state; that they equal one process is tested in e2e/test_ddp."""

from pathlib import Path

import pytest
import torch
from pipeline.conftest import settings
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import nn

from anomaly_lab.pipeline.distributed import OneNetworkAtATime, chosen_strategy
from anomaly_lab.pipeline.training import trainer_for
from anomaly_lab.types import UserError


def test_every_state_is_sent_from_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last), nn.BatchNorm2d(2))
    sent = []

    def broadcast(tensor: torch.Tensor, src: int) -> None:
        assert tensor.is_contiguous()
        sent.append(src)
        tensor.fill_(1)

    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    strategy = OneNetworkAtATime()
    strategy._lightning_module = module
    strategy.configure_ddp()
    assert sent == [0] * len(module.state_dict())
    assert all((value == 1).all() for value in module.state_dict().values())


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ([], None),
        (["trainer.devices=2"], OneNetworkAtATime),
        (["trainer.num_nodes=2", "trainer.strategy=ddp_find_unused_parameters_true"], OneNetworkAtATime),
    ],
)
def test_several_processes_need_no_name_of_a_strategy(tmp_path: Path, words: list[str], kind: type | None) -> None:
    config = settings(tmp_path, "trainer.accelerator=cpu", *words)
    trainer = trainer_for(config.trainer, tmp_path, [], 1)
    assert isinstance(trainer.strategy, kind or SingleDeviceStrategy)


def test_callbacks_are_told_the_run_folder_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning expands ~, and folds `link/..` as if no link were one: both would be another run's folder."""
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    monkeypatch.chdir(tmp_path)
    config = settings(tmp_path, "trainer.accelerator=cpu")
    for run, place in (("~/run", "~/run"), ("link/../run", "elsewhere/run")):
        trainer = trainer_for(config.trainer, Path(run), [], 1)
        assert Path(trainer.default_root_dir) == tmp_path / place


@pytest.mark.parametrize("name", ["ddp_spawn", "ddp_fork"])
def test_strategies_that_detectors_cannot_be_trained_by_are_refused(tmp_path: Path, name: str) -> None:
    config = settings(tmp_path, "trainer.accelerator=cpu", "trainer.devices=2", f"trainer.strategy={name}")
    with pytest.raises(UserError, match=rf"trainer\.strategy={name}: .*set it to ddp"):
        chosen_strategy(config.trainer)
