"""A bank of rows of one shape, filled batch by batch while a training runs, and kept in the checkpoint."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Bank(nn.Module):
    """Rows [n, *shape] of fixed capacity.

    Args:
        capacity: maximum number of rows.
        shape: of a row.

    Attributes:
        count: number of rows, readable without waiting for the device.

    Examples:
        >>> bank = Bank(capacity=2, shape=(1,))
        >>> bank.gather(torch.tensor([[0.0], [1.0], [2.0]]))
        >>> bank.gathered.tolist()  # the third found no room
        [[0.0], [1.0]]
    """

    rows: Tensor
    filled: Tensor

    def __init__(self, capacity: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(capacity, *shape))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.count = 0
        self.register_load_state_dict_post_hook(_recount)  # type: ignore[no-untyped-call]

    @property
    def gathered(self) -> Tensor:
        """The rows so far, [n, *shape]."""
        return self.rows[: self.count]

    def gather(self, rows: Tensor) -> None:
        """Append rows [n, *shape]; rows beyond the capacity are dropped."""
        rows = rows[: len(self.rows) - self.count]
        self.rows[self.count : self.count + len(rows)] = rows
        self.count += len(rows)
        self.filled += len(rows)


def _recount(bank: Bank, keys: object) -> None:
    bank.count = int(bank.filled)
