"""A device that cannot be waited for, on a machine without one: it shows what a GPU would wait for in a step.

Tensors on torch's device `meta` have shapes and no values. Whatever asks for a value raises: `.item()`, `float(…)`,
`if tensor`, `.cpu()`, `.tolist()`, `nonzero`, an index by a mask. What a GPU would wait for although no value is asked
for, copies from unpinned memory, is refused by the two modes below.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim import Adam
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FAR = torch.device("meta")
AUTOCAST = torch.autocast  # torch's own knows nothing of the far device


class WouldWaitError(AssertionError):
    """A GPU would wait for the host, or the host for a GPU."""


class NoBlockingCopies(TorchDispatchMode):
    """Refuses copies to the far device that block, and indices that lie on the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name == "_to_copy" and is_far(kwargs.get("device")) and is_near(args[0]) and not kwargs.get("non_blocking"):
            raise WouldWaitError("a tensor is copied to the device and waited for")
        if name == "copy_" and is_far(args[0].device) and is_near(args[1]):
            blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
            if blocking and args[1].ndim:
                raise WouldWaitError("a tensor on the device is filled from the host and waited for")
        if name in ("index", "index_put", "index_put_", "index_select", "gather", "take"):
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            if is_far(tensors[0].device) and any(is_near(each) and each.ndim for each in tensors[1:]):
                raise WouldWaitError(f"{name}: a tensor on the device is indexed by one on the host")
        if name == "equal":
            raise WouldWaitError("torch.equal asks for a value")
        return func(*args, **kwargs)


class NoTensorsOfNumbers(TorchFunctionMode):
    """Refuses tensors made of Python numbers on the far device, which copies unpinned memory, and arrays."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.numpy, Tensor.__array__) and is_far(args[0].device):
            raise WouldWaitError("an array is made of a tensor on the device")
        result = func(*args, **(kwargs or {}))
        of_numbers = func is Tensor.new_tensor or not (args and isinstance(args[0], Tensor))
        makes = func in (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor) and of_numbers
        if makes and is_far(result.device):
            raise WouldWaitError("a tensor on the device is made of Python numbers")
        return result


def is_far(device: Any) -> bool:
    return device is not None and torch.device(device).type == FAR.type


def is_near(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu"


class FarAccelerator(Accelerator):
    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [FAR]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "far"


class _Far(SingleDeviceStrategy):
    """One far device, from which nothing comes back at the end."""

    def teardown(self) -> None: ...


class _EnoughError(Exception):
    """The iterations to be watched are done."""


class Watch(pl.Callback):
    """Refuses to wait, from the beginning of the first iteration to the end of the last one.

    Args:
        iterations: so many are done.

    Attributes:
        phases: the phase of each iteration.
    """

    def __init__(self, iterations: int) -> None:
        self.iterations, self.phases, self.modes = iterations, list[str](), ExitStack()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not self.phases:
            self.modes.enter_context(NoBlockingCopies())
            self.modes.enter_context(NoTensorsOfNumbers())
        self.phases.append(pl_module.phase.name)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if pl_module.iterations_done == self.iterations:
            raise _EnoughError


def steps_on_a_far_device(
    detector: pl.LightningModule, batches: Any, iterations: int, callbacks: Sequence[pl.Callback] = (), **over: Any
) -> list[str]:
    """Train a detector on the far device; raises where something would wait.

    Returns:
        The phase of each iteration.
    """
    watch = Watch(iterations)
    settings: dict[str, Any] = {
        "max_epochs": 1,
        "strategy": _Far(device=FAR, accelerator=FarAccelerator()),
        "logger": False,
        "callbacks": [*callbacks, watch],
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "inference_mode": False,
    }
    trainer = pl.Trainer(**settings | over)
    with pytest.MonkeyPatch.context() as patch, watch.modes, suppress(_EnoughError):
        patch.setattr(
            torch, "autocast", lambda kind, *a, **k: nullcontext() if kind == FAR.type else AUTOCAST(kind, *a, **k)
        )
        patch.setattr(torch, "is_autocast_enabled", lambda kind: False)
        patch.setattr(sys.modules[Adam.__module__], "_device_dtype_check_for_fused", lambda *_, **__: None)
        patch.setattr("pytorch_lightning.loops.fit_loop.has_len_all_ranks", lambda *_: True)  # once an epoch
        trainer.fit(detector, batches)
    return watch.phases
