"""Principal axes and residuals; the scores built on them are compared with scikit-learn's where they are used."""

import torch

from anomaly_lab.networks.subspace import Subspace, principal_axes, residual


def test_axes_are_orthonormal_and_as_many_as_there_is_variation():
    x = torch.randn(30, 4) @ torch.randn(4, 200)
    mean = x.mean(0, dtype=torch.float64)
    axes = principal_axes(x, mean, 10)
    assert axes.shape == (4, 200)
    torch.testing.assert_close(axes @ axes.T, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-6)
    assert residual(x, mean, axes).abs().max() < 1e-3
    assert len(principal_axes(x, mean, 3)) == 3


def test_a_residual_is_orthogonal_to_the_axes():
    x = torch.randn(30, 50)
    mean = x.mean(0, dtype=torch.float64)
    axes = principal_axes(x, mean, 5)
    assert (residual(torch.randn(7, 50), mean, axes) @ axes.T).abs().max() < 1e-6


def test_a_subspace_from_a_checkpoint_leaves_the_same_residual():
    subspace, other, x = Subspace(9, 12, 3), Subspace(9, 12, 3), torch.randn(2, 12)
    subspace.bank.gather(torch.randn(9, 12))
    subspace.learn()
    other.load_state_dict(subspace.state_dict())
    assert torch.equal(subspace(x), other(x))
