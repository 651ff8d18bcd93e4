"""A detector's `predict` as a graph of tensor operations, which runs without its Python code: ONNX or torch's pt2."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.map_score import MapScore
from anomaly_lab.types import Prediction, UserError

Format = Literal["onnx", "pt2"]
INPUT = "patches"
OUTPUTS = {"score": "anomaly_score", "map": "anomaly_map", "probabilities": "probabilities"}  # fields of Prediction
LARGEST = 2**31 - 2**20  # bytes; what a file of ONNX can hold
EXAMPLES = (11, 13, 17, 19, 23)  # images that a graph may be traced with

aten = torch.ops.aten


class Graph(NamedTuple):
    """A traced detector.

    Attributes:
        program: what torch exported.
        outputs: names of its outputs, in order, of OUTPUTS.
        batch: number of images it takes; None for any.
    """

    program: torch.export.ExportedProgram
    outputs: tuple[str, ...]
    batch: int | None


def traced(detector: Detector, shape: Sequence[int]) -> Graph:
    """Trace the score, map and probabilities of a detector, gradients inside of `predict` among them.

    With a score made of the map, that score and map are traced, as for images that are new to the run.

    Args:
        detector: with its weights, on the CPU; the graph shares them.
        shape: of an image, [C, *S].

    Raises:
        UserError: its `predict` is no graph; the message says why.

    Examples:
        >>> from anomaly_lab import detectors
        >>> graph = traced(detectors.PCA((8, 8), samples=2, batch_size=2), (1, 8, 8))
        >>> graph.outputs, graph.batch
        (('score', 'map'), None)
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    if detector.no_graph:
        raise UserError(
            f"{type(detector).__name__} cannot be exported: {detector.no_graph}; score with the run itself: "
            "make predict, al.load(run)"
        )
    scoring = _Scoring(detector)
    # torch takes two sizes that are equal in the example for one and the same
    images = next(number for number in EXAMPLES if number not in shape)
    example = torch.zeros(detector.graph_batch or images, *shape)
    with _quiet(), torch.no_grad():
        there = scoring.everything(example)
        scoring.outputs = tuple(name for name, field in OUTPUTS.items() if getattr(there, field) is not None)
        try:
            # first by operations, so that gradients become operations, too; export alone cannot see through them
            flat = make_fx(
                scoring, decomposition_table=_WRITTEN_OUT, tracing_mode="symbolic", _allow_non_fake_inputs=True
            )(example)
            sizes = {} if detector.graph_batch else {0: torch.export.Dim.DYNAMIC}
            program = torch.export.export(flat, (example,), dynamic_shapes=(sizes,))
            if any(node.target == aten.as_strided.default for node in flat.graph.nodes):
                program = program.run_decompositions({aten.as_strided_scatter.default: _written_over})
        except Exception as error:  # tracing fails in any way
            raise UserError(
                f"{type(detector).__name__} cannot be exported: its `predict` cannot be traced ({_first_line(error)}); "
                "score with the run itself: make predict, al.load(run)"
            ) from error
    return Graph(program, scoring.outputs, detector.graph_batch)


def save(graph: Graph, path: Path, format: Format) -> None:
    """Write a graph into one file.

    Args:
        graph: the graph.
        path: the file.
        format: "onnx", or "pt2", which torch reads.

    Raises:
        UserError: the graph cannot be written that way, packages are missing, or the file would be too large.

    Examples:
        >>> save(traced(detector, (1, 64, 64)), Path("model.onnx"), "onnx")  # doctest: +SKIP
    """
    if format == "pt2":
        with _quiet():
            torch.export.save(graph.program, path)
        return
    try:
        import onnx  # noqa: F401 – torch needs both
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"an ONNX export needs the package {error.name}: pip install 'anomaly_lab[export]'") from error
    size = sum(value.nbytes for value in (*graph.program.state_dict.values(), *graph.program.constants.values()))
    if size > LARGEST:
        raise UserError(f"its weights take {size / 2**30:.1f} GiB, an ONNX file holds less than 2; choose FORMAT=pt2")
    with _quiet():
        try:
            program = torch.onnx.export(
                graph.program, dynamo=True, input_names=[INPUT], output_names=list(graph.outputs), verbose=False
            )
            assert program is not None
            program.save(str(path), external_data=False)
        except Exception as error:  # an operation that ONNX does not have, and all else
            raise UserError(
                f"torch cannot write this detector as ONNX ({_first_line(error)}); choose FORMAT=pt2"
            ) from error


class _Scoring(nn.Module):
    """Images [B, C, *S] -> the outputs that a detector has, as `Detector.score` computes them on a CPU."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector.eval()
        rescored = detector.rescored
        self.rescored = rescored.for_new_images() if isinstance(rescored, MapScore) else rescored
        self.outputs: tuple[str, ...] = ()

    def everything(self, image: Tensor) -> Prediction:
        own = self.detector.predict(image)
        return own if self.rescored is None else self.rescored(image, own)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        prediction = self.everything(image)
        return tuple(getattr(prediction, OUTPUTS[name]).float() for name in self.outputs)


def _median(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower median along an axis, which ONNX does not have, by sorting."""
    return _kthvalue(x, (x.shape[dim] + 1) // 2, dim, keepdim)


def _kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    values, indices = (part.narrow(dim, k - 1, 1) for part in torch.sort(x, dim))
    return (values, indices) if keepdim else (values.squeeze(dim), indices.squeeze(dim))


def _convolution_backward(gradient: Tensor, image: Tensor, weight: Tensor, *rest: Any) -> Any:
    """The gradient of a convolution's input is the transposed convolution of that of its output, and the reverse."""
    _, stride, padding, dilation, transposed, _, groups, wanted = rest
    if wanted[1] or wanted[2]:  # of weights or biases: no score needs it
        return NotImplemented
    if transposed:
        slope = aten.convolution(gradient, weight, None, stride, padding, dilation, False, [0] * len(stride), groups)
        return slope, None, None
    left = [
        side - ((out - 1) * step - 2 * pad + apart * (kernel - 1) + 1)
        for side, out, kernel, step, pad, apart in zip(
            image.shape[2:], gradient.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    slope = aten.convolution(gradient, weight, None, stride, padding, dilation, True, left, groups)
    return slope, None, None


def _max_pool_backward(gradient: Tensor, image: Tensor, *rest: Any) -> Tensor:
    """Every gradient goes to the place its maximum came from."""
    indices = rest[-1]
    return torch.zeros_like(image).flatten(2).scatter_add(2, indices.flatten(2), gradient.flatten(2)).view_as(image)


def _written_over(values: Tensor, source: Tensor, size: Any, stride: Any, offset: Any = None) -> Any:
    """Autograd writes the gradient of a view into a tensor of zeros, and here the view is all of it."""
    steps = torch.empty(source.shape, device="meta").stride()
    whole = source.numel() == values.numel() and tuple(stride) == tuple(steps) and not offset
    return source.reshape(values.shape) if whole else NotImplemented


_WRITTEN_OUT: dict[Any, Callable[..., Any]] = {  # operations that ONNX lacks
    aten.median.dim: _median,
    aten.kthvalue.default: _kthvalue,
    aten.convolution_backward.default: _convolution_backward,
    aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let the exporters say nothing: what fails is raised."""
    loud = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(loud)


def _first_line(error: Exception) -> str:
    return " ".join(str(error.__cause__ or error).split())[:200] or type(error).__name__
