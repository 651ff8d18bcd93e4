"""Copies to a device, and how it rounds."""

import pytest
import torch

from anomaly_lab import devices


def test_what_is_sent_to_the_host_is_itself() -> None:
    tensor = torch.ones(2)
    assert devices.sent(tensor, "cpu") is tensor


def test_nobody_waits_for_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: asked.setdefault("pinned", self))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, **how: asked.update(how, device=device) or self)
    tensor = torch.ones(2)
    devices.sent(tensor, "cuda")
    assert asked == {"pinned": tensor, "non_blocking": True, "device": torch.device("cuda")}


def flags() -> tuple[bool, bool, bool]:
    return (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark)


@pytest.mark.parametrize("benchmark", [False, True])
def test_scores_keep_all_digits_and_a_training_those_that_are_fast(
    benchmark: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", benchmark)
    before = flags()
    with devices.rounding("cuda", strict=False):
        assert flags() == (True, True, benchmark)
        with devices.rounding("cuda", strict=True):
            assert flags() == (False, False, False)
        assert flags() == (True, True, benchmark)
    assert flags() == before


def test_an_error_leaves_nothing_changed() -> None:
    before = flags()
    with pytest.raises(KeyError), devices.rounding("cuda", strict=True):
        raise KeyError
    assert flags() == before


def test_a_processor_is_left_alone() -> None:
    before = flags()
    with devices.rounding("cpu", strict=False):
        assert flags() == before
