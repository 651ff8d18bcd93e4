"""How far a distribution is from the standard normal one."""

from torch import Tensor


def divergence_from_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of N(mean, variance) from N(0, 1), mean over the code's numbers; [B], float32.

    Kingma, Welling 2014, appendix B, who sum; `mean`, `log_variance`: [B, latent_dim].
    """
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(1)
