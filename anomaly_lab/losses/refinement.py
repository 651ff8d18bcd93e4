"""CHR's loss: binary cross-entropy of several heads that does not let easy negatives rule (Miao et al. 2019)."""

from typing import Literal

import torch
from torch import Tensor

Balance = Literal["code", "paper"]
EPSILON = 1e-10  # inside the logarithms, as in the authors' code
CERTAIN = -20.0  # logit below which the code drops a negative


def refinement_loss(logits: Tensor, target: Tensor, balance: Balance = "code") -> Tensor:
    """Return the sum over the heads of the mean over all known targets of mask · cross-entropy.

    `code`: the mask is 0 where the target is negative and the head's logit below -20, else 1; the mean counts what is
    masked. `paper`: its abstract promises a class-balanced loss against the noise of easy negatives; the rest of the
    paper was not at hand. This is our reading: in each class, positives are weighted by the share of negatives in the
    mini-batch and negatives by the share of positives (Xie, Tu 2015), so that a class without a positive counts for
    nothing.

    Args:
        logits: [B, heads, K].
        target: [B, K]: 1 yes, 0 no, -1 unknown.
        balance: `code` or `paper`.

    Examples:
        >>> logits, target = torch.tensor([[[-30.0, 0.0]]]), torch.tensor([[0, 0]])
        >>> round(refinement_loss(logits, target).item(), 4)  # (0 + log 2) / 2
        0.3466
        >>> refinement_loss(logits, target, "paper").item()
        0.0
    """
    logits = logits.float()
    target = target[:, None]
    known = target >= 0
    probability = torch.sigmoid(logits)
    entropy = -torch.where(target == 1, (probability + EPSILON).log(), (1 - probability + EPSILON).log())
    if balance == "code":
        mask = ~((target == 0) & (logits < CERTAIN))
    else:
        positive = (target == 1).sum(0) / known.sum(0).clamp_min(1)  # ≠ paper: see above
        mask = torch.where(target == 1, 1 - positive, positive)
    return (entropy * mask * known).sum((0, 2)).div(known.sum().clamp_min(1)).sum()
