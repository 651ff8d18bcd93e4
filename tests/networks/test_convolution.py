"""The convolution against torch's own, and its derivatives against finite differences."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from anomaly_lab.networks.convolution import Conv2d

CASES = pytest.mark.parametrize(("side", "bias"), [(1, True), (3, True), (3, False)])


def twins(side: int, bias: bool, dtype: torch.dtype = torch.float32) -> tuple[Conv2d, nn.Conv2d, Tensor]:
    """Ours, torch's with the same weights, and an input."""
    torch.manual_seed(0)
    ours, theirs = Conv2d(3, 2, side, bias=bias), nn.Conv2d(3, 2, side, padding=side // 2, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    return ours.to(dtype), theirs.to(dtype), torch.randn(2, 3, 4, 5, dtype=dtype)


def twice(conv: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = conv(x, twice=True) if isinstance(conv, Conv2d) else conv(x)
    return y


def slope_penalty(conv: nn.Module, x: Tensor) -> Tensor:
    """Depends on the convolution's first derivative, and on its output."""
    x = x.detach().requires_grad_(True)
    y = twice(conv, x)
    (slope,) = torch.autograd.grad(y.tanh().sum(), x, create_graph=True)
    return slope.square().sum() + y.square().sum()


@CASES
def test_first_and_second_derivatives_by_finite_differences(side: int, bias: bool) -> None:
    conv, _, x = twins(side, bias, torch.float64)
    names = [name for name, _ in conv.named_parameters()]

    def call(image: Tensor, *weights: Tensor) -> Tensor:
        y: Tensor = functional_call(conv, dict(zip(names, weights, strict=True)), (image, True))
        return y.tanh()

    inputs = (x.requires_grad_(True), *conv.parameters())
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@CASES
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_torchs_convolution(side: int, bias: bool, memory_format: torch.memory_format) -> None:
    ours, theirs, x = twins(side, bias)
    found = []
    for conv in (ours, theirs):
        conv.to(memory_format=memory_format)
        image = x.detach().to(memory_format=memory_format).requires_grad_(True)
        y = twice(conv, image)
        y.sin().sum().backward()
        first = [image.grad, *(p.grad.clone() for p in conv.parameters())]
        conv.zero_grad()
        slope_penalty(conv, image).backward()
        found.append([y, *first, *(p.grad for p in conv.parameters())])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_a_frozen_parameter_gets_no_gradient_and_the_other_its_own(frozen: str) -> None:
    ours, theirs, x = twins(3, True)
    for conv in (ours, theirs):
        conv.get_parameter(frozen).requires_grad_(False)
        slope_penalty(conv, x).backward()
    other = {"weight": "bias", "bias": "weight"}[frozen]
    assert ours.get_parameter(frozen).grad is None
    torch.testing.assert_close(ours.get_parameter(other).grad, theirs.get_parameter(other).grad)


def test_a_slope_towards_the_input_computes_no_weights_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    backward = torch.ops.aten.convolution_backward
    monkeypatch.setattr(torch.ops.aten, "convolution_backward", lambda *a: (asked.append(a[-1]), backward(*a))[1])
    conv, _, x = twins(3, True)
    slope_penalty(conv, x)
    assert asked == [[True, False, False]]


def test_autocast_gives_bfloat16_and_float32_gradients() -> None:
    conv, _, x = twins(3, True)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        y = conv(x, twice=True)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert {p.grad.dtype for p in conv.parameters()} == {torch.float32}


def test_a_backward_inside_autocast_stays_in_float32() -> None:
    """Lightning keeps autocast on during manual_backward; the penalty's second derivative must not notice."""
    gradients = []
    for enabled in (False, True):
        conv, _, x = twins(3, True)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            with torch.autocast("cpu", enabled=False):
                penalty = slope_penalty(conv, x)
            penalty.backward()
        gradients.append([p.grad for p in conv.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-6)


def test_starts_and_is_saved_as_torchs() -> None:
    torch.manual_seed(0)
    ours = Conv2d(3, 2, 3).state_dict()
    torch.manual_seed(0)
    theirs = nn.Conv2d(3, 2, 3).state_dict()
    assert list(ours) == list(theirs)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_differentiated_once_or_not_at_all_it_is_torchs_own() -> None:
    conv, _, x = twins(3, True)
    assert type(conv(x).grad_fn) is type(nn.functional.conv2d(x, conv.weight).grad_fn)
    with torch.no_grad():
        assert torch.equal(conv(x, twice=True), conv(x))
