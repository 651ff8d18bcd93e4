"""The products against torch's own convolutions: values, derivatives, layout, and where each is used."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from anomaly_lab.networks import strided
from anomaly_lab.networks.strided import DoublingConv2d, HalvingConv2d

KINDS = pytest.mark.parametrize(
    ("ours", "theirs", "side"),
    [(HalvingConv2d, nn.Conv2d, 8), (HalvingConv2d, nn.Conv2d, 2), (DoublingConv2d, nn.ConvTranspose2d, 4)],
)


def passed(conv: nn.Module, x: Tensor, precision: torch.dtype) -> tuple[Tensor, ...]:
    """Output and gradients of input and weight."""
    image = x.clone(memory_format=torch.preserve_format).requires_grad_(True)
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        y = conv(image)
    y.float().sin().sum().backward()
    assert image.grad is not None
    return y, image.grad, next(conv.parameters()).grad


@KINDS
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_equals_torchs_convolution(
    ours: type, theirs: type, side: int, memory_format: torch.memory_format, precision: torch.dtype
) -> None:
    torch.manual_seed(0)
    error = 1e-5 if precision == torch.float32 else 2e-2
    fast, plain = ours(16, 24), theirs(16, 24, 4, 2, 1, bias=False)
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(3, 16, side, side).to(memory_format=memory_format)
    found, expected = (passed(conv.to(memory_format=memory_format), x, precision) for conv in (fast, plain))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=error, atol=error * b.abs().max().item())


@KINDS
def test_derivatives_by_finite_differences(ours: type, theirs: type, side: int) -> None:
    torch.manual_seed(0)
    conv = ours(2, 3).double()
    x = torch.randn(2, 2, min(side, 4), 4, dtype=torch.float64, requires_grad=True)

    def call(image: Tensor, weight: Tensor) -> Tensor:
        y: Tensor = functional_call(conv, {"weight": weight}, (image,))
        return y.tanh()

    assert torch.autograd.gradcheck(call, (x, conv.weight))
    assert torch.autograd.gradgradcheck(call, (x, conv.weight))


@KINDS
def test_large_maps_and_odd_sides_are_left_to_torch(
    ours: type, theirs: type, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(theirs, "forward", lambda self, x, *_: seen.append(tuple(x.shape)))
    conv = ours(2, 3)
    conv(torch.zeros(1, 2, side, side))
    assert not seen
    small = strided.MAX_SIDE
    for shape in ((2 * small + 2,) * 2, (4 * small, 2 * small)):
        conv(torch.zeros(1, 2, *shape))
        assert seen.pop() == (1, 2, *shape)
    if ours is HalvingConv2d:
        conv(torch.zeros(1, 2, 5, 4))
        assert seen
