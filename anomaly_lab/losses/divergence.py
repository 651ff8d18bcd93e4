"""Divergence of a latent distribution from the standard normal distribution."""

from torch import Tensor


def divergence_from_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of N(mean, variance) from N(0, 1), averaged over latent dimensions.

    Kingma, Welling 2014, appendix B; ≠ paper: their sum over latent dimensions is a mean here. Computed in float32.

    Args:
        mean: [B, latent_dim].
        log_variance: [B, latent_dim].

    Returns:
        [B].

    Examples:
        >>> import torch
        >>> divergence_from_normal(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2)).tolist()  # mean of 0 and 2²/2
        [1.0]
    """
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(1)
