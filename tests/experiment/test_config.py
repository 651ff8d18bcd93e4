from pathlib import Path
from typing import Literal

import pytest
from omegaconf import DictConfig

from anomaly_lab.experiment import config, schema
from anomaly_lab.types import UserError

pytestmark = pytest.mark.usefixtures("trusted_toys")
BASE = f"""
data: {{_target_: {__name__}.Data, root: here, seed: "${{seed}}"}}
callbacks:
  saver: {{_target_: {__name__}.Saver}}
"""
TOY = f"""# A toy; takes no time.
# Second line.
extends: [_base/toy]
detector:
  _target_: {__name__}.Toy
  patch_size: ${{data.patch_size}}
budgets:
  paper: {{detector.gan_iterations: 1000}}
  laptop: {{detector.gan_iterations: 100}}
  smoke: {{detector.gan_iterations: 1, data: {{batch_size: 2}}}}
"""


class Data:
    def __init__(
        self,
        root: str,
        patch_size: tuple[int, int] = (64, 64),
        batch_size: int = 8,
        augment: dict[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.root, self.patch_size, self.batch_size = root, patch_size, batch_size
        self.augment, self.seed = augment, seed


class Toy:
    def __init__(
        self,
        patch_size: tuple[int, ...],
        latent_dim: int = 128,
        critic_loss: Literal["wgan", "hinge"] = "wgan",
        betas: tuple[float, float] = (0.0, 0.9),
        gan_iterations: int = 10,
    ) -> None:
        if latent_dim < 1:
            raise ValueError(f"latent_dim is {latent_dim}, must be\npositive")
        self.patch_size, self.latent_dim, self.betas = patch_size, latent_dim, betas


class Saver:
    def __init__(self, every: int = 1) -> None:
        self.every = every


@pytest.fixture(autouse=True)
def _toy_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("_base/toy", BASE)
    write("toy", TOY)


def write(name: str, text: str) -> None:
    path = Path("experiments") / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def load(*overrides: str) -> DictConfig:
    return config.load("toy", ["budget=laptop", *overrides])


def complaint(*overrides: str, name: str = "toy") -> str:
    with pytest.raises(UserError) as caught:
        config.load(name, ["budget=laptop", *overrides])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_bases_and_interpolations_come_together():
    toy = load("data.patch_size=[32,32]", "seed=7")
    assert (toy.name, toy.budget, toy.runs, toy.data.root, toy.data.seed) == (
        "toy",
        "laptop",
        "runs",
        "here",
        7,
    )
    assert toy.detector.latent_dim == 128
    assert toy.trainer._target_ == "pytorch_lightning.Trainer"
    assert "max_epochs" not in toy.trainer
    assert "extends" not in toy


def test_a_class_gets_plain_python():
    toy = load("data.patch_size=[32,32]", "data.augment={flip: 0.5}", "detector.betas=[0.5, 0.9]")
    detector, data = config.build(toy.detector), config.build(toy.data, root="elsewhere")
    assert (detector.patch_size, type(detector.patch_size)) == ((32, 32), tuple)
    assert detector.betas == (0.5, 0.9)
    assert (data.root, data.augment, type(data.augment)) == ("elsewhere", {"flip": 0.5}, dict)


def test_a_constructor_that_refuses_a_value_is_the_users_error():
    with pytest.raises(UserError, match=r"^Toy: latent_dim is 0, must be positive$"):
        config.build(load("detector.latent_dim=0").detector)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "detector.latent_dmi=3",
            "toy: detector.latent_dmi: Key 'latent_dmi' not in 'Toy'. Did you mean: 'latent_dim'?",
        ),
        (
            "detector.zzz=3",
            "detector.zzz: Key 'zzz' not in 'Toy'. Valid keys: _target_, patch_size, latent_dim",
        ),
        (
            "detector.latent_dim=abc",
            "detector.latent_dim: Value 'abc' of type 'str' could not be converted to Integer",
        ),
        (
            "detector.latent_dim=1.5",
            "detector.latent_dim: Value '1.5' of type 'float' could not be converted",
        ),
        ("detector.latent_dim=null", "detector.latent_dim: Incompatible value 'None'"),
        (
            "detector.critic_loss=nope",
            "detector.critic_loss: Invalid value 'nope', expected one of ['wgan', 'hinge']",
        ),
        ("detector.critic_loss=hingee", "expected one of ['wgan', 'hinge']. Did you mean: 'hinge'?"),
        ("detector.betas=[0.5]", "detector.betas: TupleConfig length 1 does not match type hint length 2"),
        ("detector.latent_dim=${data.nope}", "detector.latent_dim: Interpolation key 'data.nope' not found"),
        ("detector.latent_dim=${data.root}", "detector.latent_dim: While dereferencing"),
        ("detector=null", "detector must be a mapping that names its class by _target_"),
        ("detector._target_=tests", "'tests' is not the dotted path of a class"),
        ("detector._target_=anomaly_lab.detectorss.Toy", "Did you mean: 'anomaly_lab.detectors'"),
        (f"detector._target_={__name__}.Tyo", f"no class 'Tyo' in {__name__}. Did you mean: 'Toy'"),
        (f"detector._target_={__name__}.load", f"no class 'load' in {__name__}"),
        ("detector._target_=os.getcwd", "detector._target_: os.getcwd is not of anomaly_lab, so it was not imported"),
        ("data.patch_size=[a, b]", "data.patch_size: Value of an element could not be converted to Integer"),
        ("data.patch_size=3", "data.patch_size: Invalid value assigned: int is not a"),
        ("data.batch_size.x=3", "data.batch_size: Value '{'x': 3}'"),
        (
            "data.augment={flip: a}",
            "data.augment.flip: Value 'a' of type 'str' could not be converted to Float",
        ),
        ("data=3", "data must be a mapping"),
        ("sede=3", "sede: Key 'sede' not in 'Experiment'. Did you mean: 'seed'?"),
        (
            "evaluation.purpos=3",
            "evaluation.purpos: Key 'purpos' not in 'Evaluation'. Did you mean: 'purpose'?",
        ),
        (
            "trainer.max_epochs=3",
            "trainer.max_epochs is set by the engine: the phases determine the length of the training",
        ),
        ("trainer.max_epoch=3", "trainer.max_epochs is set by the engine"),
        ("trainer.val_check_interval=3", "data.epoch_length"),
        ("trainer.logger=true", "trainer.logger is set by the engine"),
        ("trainer.devcies=2", "trainer.devcies: Key 'devcies' not in 'Trainer'. Did you mean: 'devices'?"),
        ("trainer.num_nodes=two", "trainer.num_nodes: Value 'two'"),
        ("trainer.precision=16-mixed", "use bf16-mixed"),
        ("trainer.precision=fp12", "trainer.precision: Value 'fp12'"),
        ("trainer=null", "trainer must be a mapping"),
        ("callbacks.saver.evry=3", "callbacks.saver.evry: Key 'evry' not in 'Saver'. Did you mean: 'every'?"),
        ("callbacks.savre.every=3", "callbacks.savre: there is no such callback. Did you mean: 'saver'?"),
        (
            "callbacks.copies.shown=4",
            "callbacks.copies._target_=…: anomaly_lab.callbacks.best_test_epoch.BestTestEpoch, ",
        ),
        ("callbacks.copies={shown: 4}", "One is added by its class, callbacks.copies._target_=…: "),
        ("callbacks.savre=null", "callbacks.savre: there is no such callback. Did you mean: 'saver'?"),
        ("callbacks=null", "callbacks"),
        ("budget=smok", "unknown budget 'smok'; the budgets are auto, paper, laptop, smoke"),
        ("latent_dim", "'latent_dim' is not key=value"),
        ("=3", "'=3' is not key=value"),
        ("a..b=3", "'a..b=3' is not key=value"),
        ("seed=[1", "'seed=[1': the text after '=' is not valid YAML"),
    ],
)
def test_a_wrong_override_is_answered_in_one_line(override: str, message: str):
    assert message in complaint(override)


def test_an_unknown_experiment_is_answered_with_the_closest():
    assert complaint(name="tyo") == "no experiment 'tyo'. Did you mean: 'toy'? `make list` shows all"
    assert "there is no data set 'hedct'. Did you mean: 'headct'?" in complaint(name="fanogan_hedct")
    assert "no experiment '../toy'" in complaint(name="../toy")


def test_a_missing_mandatory_value_is_named():
    write("_base/toy", BASE.replace("root: here, ", ""))
    assert complaint() == "toy: Missing mandatory value: data.root"
    write("toy", TOY.replace("detector:\n", "detecto:\n"))
    assert "Did you mean: 'detector'?" in complaint()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "experiments/toy.yaml, line 2: did not find expected"),
        ("seed: 1\nseed: 2\n", "experiments/toy.yaml, line 2: found duplicate key seed"),
        ("detector:\n  x: 1\n  x: 2\n", "experiments/toy.yaml, line 3: found duplicate key x"),
        ("- 1\n", "experiments/toy.yaml: must contain a mapping"),
        ("3\n", "experiments/toy.yaml: not readable as YAML"),
        ("a: \x07\n", "experiments/toy.yaml: not readable as YAML"),
        (
            "extends: [_base/nope]\n",
            "experiments/toy.yaml: extends datasets/nope, which does not exist",
        ),
        ("extends: [toy]\n", "experiments/toy.yaml: extends experiments/toy.yaml, which extends this file"),
        ("", "detector must be a mapping"),
    ],
)
def test_a_broken_yaml_is_named_with_its_line(text: str, message: str):
    write("toy", text if text else TOY.replace(f"_target_: {__name__}.Toy", "latent_dim: 3"))
    assert message in complaint()


def test_later_bases_win_and_the_file_wins_over_its_bases():
    write("_base/late", "seed: 5\nruns: elsewhere\n")
    write("toy", TOY.replace("[_base/toy]", "[_base/toy, _base/late]\nseed: 6"))
    assert (load().seed, load().runs) == (6, "elsewhere")


def test_a_budget_lies_over_the_yaml_and_under_the_overrides():
    assert config.load("toy", ["budget=paper"]).detector.gan_iterations == 1000
    smoke = config.load("toy", ["budget=smoke", "detector.gan_iterations=3"])
    assert (smoke.budget, smoke.detector.gan_iterations, smoke.data.batch_size) == ("smoke", 3, 2)


def test_the_automatic_budget_is_the_papers_with_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert config.load("toy").budget == "paper"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert config.load("toy").budget == "laptop"


def test_a_budget_the_experiment_lacks_and_a_wrong_key_in_one_are_named():
    write("toy", TOY.replace("  laptop:", "  paper2:"))
    assert complaint() == "experiments/toy.yaml: budgets.paper2: unknown budget; the budgets are paper, laptop, smoke"
    write("toy", "\n".join(line for line in TOY.splitlines() if "laptop" not in line))
    assert complaint() == "toy: no budget 'laptop': add budgets.laptop to its YAML"
    write("toy", TOY.replace("{detector.gan_iterations: 100}", "{detector.gan_iteration: 100}"))
    assert "detector.gan_iteration: Key 'gan_iteration' not in 'Toy'" in complaint()


def test_a_callback_can_be_removed_and_added():
    assert "saver" not in load("callbacks.saver=null").callbacks
    added = load(f"callbacks.second={{_target_: {__name__}.Saver, every: 3}}")
    assert (added.callbacks.saver.every, added.callbacks.second.every) == (1, 3)


def test_what_is_shown_is_what_a_run_folder_recalls():
    toy = load("detector.betas=[0.5, 0.9]", "callbacks.saver=null")
    Path("config.yaml").write_text(config.show(toy))
    recalled = config.recall(Path("config.yaml"))
    assert recalled == toy
    assert config.build(recalled.detector).betas == (0.5, 0.9)
    assert "latent_dim: 128" in config.show(toy)


def test_schema_follows_handed_on_arguments_to_the_base_class():
    class Base:
        def __init__(self, root: str, size: int = 3) -> None: ...

    class Derived(Base):
        def __init__(self, *, squares: int = 1, size: int = 5, **arguments: object) -> None: ...

    class Closed(Base):
        def __init__(self, other: int = 2) -> None: ...

    assert schema._schema(Derived).keys() == {"_target_", "root", "size", "squares"}
    assert schema._schema(Derived).size == 5
    assert schema._schema(Closed).keys() == {"_target_", "other"}


@pytest.mark.parametrize("word", ["budgets.smoke.seed=1", "layers=[a]"])
def test_what_says_where_values_come_from_cannot_be_set(word: str) -> None:
    with pytest.raises(UserError, match="override the setting itself"):
        config.load("kde_headct", ["budget=smoke", word])
