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


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_falls_back_where_it_is_emulated(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert devices.precision_for("bf16-mixed") == ("bf16-mixed" if fast else "32-true")
    assert devices.precision_for("32-true") == "32-true"
    assert devices.emulates_bfloat16("cpu") is not fast
    assert not devices.emulates_bfloat16("cuda")
