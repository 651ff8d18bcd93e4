"""A batch that several processes share: each has its rows of what one process would draw, and the same batch norm."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from anomaly_lab.networks.normalisation import shared_batch_norm


class SharedDraws(TorchFunctionMode):
    """Makes draws of n rows inside a block the rows of this process in a draw of all processes' rows.

    Every process has the same seed. `torch.rand`, `randn`, `rand_like`, `randn_like`, `randint` and dropout of a
    tensor whose first dimension is one of `sizes` draw the numbers of the whole batch and keep the rows of this
    process, so that n processes see together what a single one sees. Other draws are the same in all processes, and
    draws from a generator of their own are left alone. Batch norm normalises by the images of all processes, which
    must run the same layers in the same order.

    Args:
        rank: number of this process, from 0.
        world_size: number of processes.
        sizes: numbers of rows that are a process's share.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> whole = torch.rand(4, 2)
        >>> parts = []
        >>> for rank in (0, 1):
        ...     _ = torch.manual_seed(0)
        ...     with SharedDraws(rank, 2, sizes={2}):
        ...         parts.append(torch.rand(2, 2))
        >>> torch.equal(torch.cat(parts), whole)
        True
    """

    def __init__(self, rank: int, world_size: int, sizes: Collection[int]) -> None:
        super().__init__()
        self.rank, self.world_size, self.sizes = rank, world_size, sizes

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.batch_norm and self.world_size > 1 and kwargs.get("training"):
            return shared_batch_norm(*args, **kwargs)
        if kwargs.get("generator") is None:
            if func in (torch.rand, torch.randn):
                size = tuple(args[0]) if args and not isinstance(args[0], int) else args
                size = tuple(kwargs.pop("size", size))
                if size and size[0] in self.sizes:
                    return self._rows(func(self._whole(size), **kwargs), size[0])
                return func(size, **kwargs)
            if func in (torch.rand_like, torch.randn_like) and args[0].shape[:1] and len(args[0]) in self.sizes:
                draw = Tensor.uniform_ if func is torch.rand_like else Tensor.normal_
                return self._rows(draw(self._empty(args[0], kwargs.get("dtype"))), len(args[0]))
            if func is torch.randint:
                draw_integers: Callable[..., Tensor] = func
                *limits, size = (*args, kwargs.pop("size")) if "size" in kwargs else args
                if size and size[0] in self.sizes:
                    return self._rows(draw_integers(*limits, self._whole(tuple(size)), **kwargs), size[0])
                return draw_integers(*limits, size, **kwargs)
            if func is F.dropout:
                return self._dropout(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or not p or len(x) not in self.sizes:
            return F.dropout(x, p, training, inplace)
        kept = self._rows(self._empty(x).bernoulli_(1 - p).div_(1 - p), len(x))
        return x.mul_(kept) if inplace else x * kept

    def _empty(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return room for the whole batch of which `x` are this process's rows, laid out in memory alike."""
        whole = torch.empty(self._whole(tuple(x.shape)), dtype=dtype or x.dtype, device=x.device)
        is_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        return whole.to(memory_format=torch.channels_last) if is_last else whole

    def _whole(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return (size[0] * self.world_size, *size[1:])

    def _rows(self, whole: Tensor, n: int) -> Tensor:
        return whole[self.rank * n : (self.rank + 1) * n]
