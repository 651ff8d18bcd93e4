"""The graph of a detector computes what its `predict` computes; where there is none, one line says why."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from detectors.test_contract import CASES, SIZE, Case, trained
from torch import Tensor, nn
from toys import smooth

from anomaly_lab import detectors
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.pca import PCA
from anomaly_lab.evaluation.map_score import MapScore
from anomaly_lab.experiment.config import ScoreRule
from anomaly_lab.pipeline import graph
from anomaly_lab.types import Phase, Prediction, UserError


def outputs(detector: Detector, image: Tensor) -> list[Tensor]:
    """What the detector itself says, in the order of a graph's outputs."""
    said = detector.score({"image": image})
    return [value for field in graph.OUTPUTS.values() if (value := getattr(said, field)) is not None]


def run_back(made: graph.Graph, path: Path, image: Tensor) -> list[Tensor]:
    """What the file says, `made.batch` images at a time, or three."""
    graph.save(made, path, "pt2" if path.suffix == ".pt2" else "onnx")
    parts = image.split(made.batch or 3)
    if path.suffix == ".pt2":
        program = torch.export.load(path).module()
        with torch.no_grad():
            said = [program(part) for part in parts]
    else:
        session = onnxruntime.InferenceSession(str(path))
        assert [each.name for each in session.get_outputs()] == list(made.outputs)
        said = [[torch.from_numpy(v) for v in session.run(None, {graph.INPUT: part.numpy()})] for part in parts]
    return [torch.cat(blocks) for blocks in zip(*said, strict=True)]


def check_agrees(
    detector: Detector, image: Tensor, folder: Path, formats: tuple[str, ...] = ("onnx", "pt2"), rounding: float = 1e-5
) -> None:
    made = graph.traced(detector, tuple(image.shape[1:]))
    wanted = outputs(detector, image)
    assert len(made.outputs) == len(wanted)
    for format in formats:
        for value, got in zip(wanted, run_back(made, folder / f"model.{format}", image), strict=True):
            assert got.shape == value.shape
            assert (got - value).abs().max() <= rounding * value.abs().max().clamp_min(1e-30), format


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_detector_leaves_or_says_why_not(case: Case, tmp_path: Path) -> None:
    detector, image = trained(case), case.images(n=7)
    if detector.no_graph:
        with pytest.raises(UserError, match=f"{case.kind.__name__} cannot be exported: {detector.no_graph}"):
            graph.traced(detector, (case.channels, *SIZE))
    else:
        # a grey picture needs all that a colour one does, and is repeated where a network wants colours
        check_agrees(detector, image, tmp_path, ("onnx", "pt2") if case.channels == 1 else ("pt2",))


@pytest.mark.slow
def test_there_are_few_without_a_graph() -> None:
    assert {str(case.kind.__name__) for case in CASES if case.make().no_graph} == {"AnoGAN"}
    guided, averaged = (
        detectors.MultiKD((32, 32), maps=maps, teacher_weights="random") for maps in ("guided", "smoothgrad")
    )
    assert not guided.no_graph
    assert "smoothgrad" in averaged.no_graph


class Slopes(Detector):
    """Its score is a convolutional network's, its map the gradient of that: what exporters cannot see through."""

    networks = ("net",)

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2), nn.Tanh(), nn.ConvTranspose2d(4, 2, 2, stride=2),
            nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
        )  # fmt: skip

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("fit", 1, self.networks),)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        return (torch.optim.SGD(self.net.parameters(), 0.1),)

    def predict(self, image: Tensor) -> Prediction:
        with torch.enable_grad():
            image = image.detach().requires_grad_()
            score = self.net(image).square().flatten(1).sum(1)
            (slope,) = torch.autograd.grad(score.sum(), image)
        size = slope.abs()
        middle = size.flatten(1).median(1).values
        ceiling = size.flatten(1).kthvalue(200, dim=1).values
        return Prediction(score.detach() + middle, size.minimum(ceiling[:, None, None, None]))


@pytest.mark.slow
def test_gradients_inside_of_predict_leave_with_it(tmp_path: Path) -> None:
    check_agrees(Slopes().eval(), smooth(5, seed=1), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "dense"])
def test_class_activation_leaves_whatever_weights_ask_for_gradients(head: str, tmp_path: Path) -> None:
    """As a checkpoint is loaded, all of them do, and autograd writes into views, which ONNX does not have."""
    torch.manual_seed(1)
    detector = detectors.Classifier((32, 32), 1, ("normal", "a", "b"), backbone="squeezenet1_0", head=head).eval()
    with torch.no_grad():
        for weight in detector.classifier.head.parameters():
            weight.mul_(20)
    image = smooth(5, seed=3)
    for asked in (True, False):
        detector.requires_grad_(asked)
        assert outputs(detector, image)[1].amax((1, 2, 3)).count_nonzero() > 0
        # A map is a sum of 512 terms that nearly cancel: two of torch's own kernels differ by 5e-6 of it, ONNX by 5e-6
        # with one thread and by 1.1e-5 with two (an EPYC with AVX-512).
        check_agrees(detector, image, tmp_path, ("onnx",), rounding=3e-5)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 2), (3, 2, 2, 1)])
def test_the_gradient_of_a_convolution_is_written_out(transposed, stride, padding, dilation, groups) -> None:
    convolve = F.conv_transpose2d if transposed else F.conv2d
    image = torch.randn(2, 4, 13, 10, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 4 // groups, 3, 3, dtype=torch.float64)
    result = convolve(image, weight, None, stride, padding, groups=groups, dilation=dilation)
    given = torch.randn_like(result)
    (wanted,) = torch.autograd.grad(result, image, given)
    pairs = [[value] * 2 for value in (stride, padding, dilation)]
    rest = ([0], *pairs, transposed, [0, 0], groups, [True, False, False])
    got, *others = graph._convolution_backward(given, image.detach(), weight, *rest)
    torch.testing.assert_close(got, wanted)
    assert others == [None, None]
    assert graph._convolution_backward(given, image, weight, *rest[:-1], [True, True, False]) is NotImplemented


@pytest.mark.parametrize("size", [4, 5])
def test_medians_and_ranks_are_written_out(size: int) -> None:
    x = torch.randn(3, size, 2)
    for keepdim in (False, True):
        assert torch.equal(graph._median(x, 1, keepdim)[0], x.median(1, keepdim).values)
        assert torch.equal(graph._kthvalue(x, 2, 1, keepdim)[0], x.kthvalue(2, 1, keepdim).values)


@pytest.mark.parametrize("standardise", [pytest.param("none", marks=pytest.mark.slow), "place"])
@pytest.mark.parametrize("features", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_score_made_of_the_map_leaves_as_for_new_images(standardise: str, features: bool, tmp_path: Path) -> None:
    detector = PCA((32, 32), samples=8, batch_size=8)
    normals, new = smooth(8, seed=1), smooth(4, seed=2)
    detector.gather(normals)
    detector.learn()
    detector.eval()
    rule = ScoreRule("map", smooth=1.0, sign="bright", standardise=standardise, pool="top", top=0.1)  # type: ignore[arg-type]
    rule.features = features
    detector.rescored = MapScore.fit(rule, detector.score, [normals])
    assert outputs(detector, new)[0].std() > 0
    check_agrees(detector, new, tmp_path, ("onnx",))


class Ahead(PCA):
    """Asks for a number that a graph does not have."""

    def predict(self, image: Tensor) -> Prediction:
        return Prediction(image.flatten(1).mean(1) * float(image.mean() > 0))


def test_what_cannot_be_traced_is_said_in_one_line() -> None:
    with pytest.raises(
        UserError, match=r"Ahead cannot be exported: its `predict` cannot be traced \(.*make predict"
    ) as error:
        graph.traced(Ahead((8, 8), samples=2, batch_size=2), (1, 8, 8))
    assert "\n" not in str(error.value)


def test_a_batch_that_the_code_counts_is_found() -> None:
    class Counts(PCA):
        def predict(self, image: Tensor) -> Prediction:
            return Prediction(torch.zeros(len(image)) + image.flatten(1).mean(1))

    with pytest.raises(UserError, match="cannot be traced"):
        graph.traced(Counts((8, 8), samples=2, batch_size=2), (1, 8, 8))


def test_weights_that_no_onnx_file_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = graph.traced(PCA((8, 8), samples=2, batch_size=2), (1, 8, 8))
    monkeypatch.setattr(graph, "LARGEST", 100)
    with pytest.raises(UserError, match="choose FORMAT=pt2"):
        graph.save(made, tmp_path / "a.onnx", "onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = graph.traced(PCA((8, 8), samples=2, batch_size=2), (1, 8, 8))
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"needs the package onnxscript: pip install 'anomaly_lab\[export\]'"):
        graph.save(made, tmp_path / "a.onnx", "onnx")


def test_weights_stay_as_they_are() -> None:
    detector = Slopes()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    graph.traced(detector, (1, 16, 16))
    assert all(np.array_equal(value, before[name]) for name, value in detector.state_dict().items())
    assert all(weight.requires_grad for weight in detector.parameters())


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 11, 11)])
def test_no_other_size_is_taken_for_the_number_of_images(shape: tuple[int, int, int]) -> None:
    """Traced with three images, no detector of colour pictures could be exported."""
    network = graph.traced(PCA(shape[1:], in_channels=shape[0], samples=2, batch_size=2), shape)
    assert network.batch is None
