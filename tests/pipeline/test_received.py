"""A run folder from elsewhere runs no code, writes nowhere else, and is refused in one line where it is not right."""

import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from data.conftest import write_headct
from pages import own, scripts_of
from pipeline.conftest import settings
from typer.testing import CliRunner

import anomaly_lab as al
from anomaly_lab import __main__
from anomaly_lab.experiment import checkpoint_files
from anomaly_lab.pipeline import engine, run_commands
from anomaly_lab.types import UserError

SMALL = ("detector.gan_iterations=2", "detector.encoder_iterations=2", "data.epoch_length=2", "detector.n_critic=1",
         "callbacks.wandb=null", "evaluation.replicates=20", "trainer.precision=32-true")  # fmt: skip
STRANGER = """
import pathlib
pathlib.Path(CANARY).touch()
class Evil:
    def __init__(self, **arguments): pathlib.Path(CANARY).touch()
"""
SCRIPT = """"'><script>alert(1)</script><img src=x onerror=alert(1)>"""
VERBS = ("resume", "evaluate", "quality", "predict", "report")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("trained")
    write_headct(base / "headct")
    engine.train(settings(base, *SMALL))
    return base


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a run in its surroundings; whose working folder has a module of a stranger, and a file of mine."""
    base = tmp_path / "copy"
    shutil.copytree(trained, base)
    (folder,) = (base / "runs" / "fanogan_headct").iterdir()
    for name in ("config.yaml", "provenance.json"):
        (folder / name).write_text((folder / name).read_text().replace(str(trained), str(base)))
    (tmp_path / "stranger.py").write_text(STRANGER.replace("CANARY", repr(str(tmp_path / "canary"))))
    (tmp_path / "mine").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


class Payload:
    def __reduce__(self):
        return os.mkdir, ("canary",)


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def plant(run: Path) -> None:
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new, 1))

    return plant


def checkpoint(content: Callable[[], bytes]) -> Callable[[Path], None]:
    """Put these bytes into the place of the run's checkpoint, with the right digest in the name."""

    def plant(run: Path) -> None:
        newest = checkpoint_files.by_age(run / "checkpoints")[0]
        name = f"{newest.name[:8]}-{hashlib.sha256(content()).hexdigest()[:16]}.ckpt"
        for path in (run / "checkpoints").iterdir():
            path.unlink()
        (run / "checkpoints" / name).write_bytes(content())
        facts = json.loads((run / "provenance.json").read_text())
        facts["checkpoint"]["file"] = name
        (run / "provenance.json").write_text(json.dumps(facts))

    return plant


def saved() -> bytes:
    torch.save({"state_dict": {"w": Payload()}}, buffer := io.BytesIO())
    return buffer.getvalue()


def gallery(run: Path) -> None:
    content = np.empty(1, object)
    content[0] = Payload()
    np.savez(run / "samples" / "gallery.npz", id=content, kind=np.array(["tp"]), image=np.zeros((1, 1, 4, 4)))


def linked(name: str) -> Callable[[Path], None]:
    def plant(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(Path("mine").absolute())

    return plant


def linked_folder(run: Path) -> None:
    shutil.rmtree(run / "samples")
    (run / "samples").symlink_to(Path.cwd())


PLANTS: dict[str, Callable[[Path], None]] = {
    "a stranger's detector": replaced("config.yaml", "anomaly_lab.detectors.fanogan.FAnoGAN", "stranger.Evil"),
    "a stranger's data": replaced("config.yaml", "anomaly_lab.data.datasets.headct.HeadCT", "stranger.Evil"),
    "a stranger's callback": replaced("config.yaml", "anomaly_lab.callbacks.record.Record", "stranger.Evil"),
    "a process": replaced("config.yaml", "pytorch_lightning.Trainer", "subprocess.Popen\n  args: [touch, canary]"),
    "a class below a section": replaced("config.yaml", "plugins: null", "plugins: {_target_: stranger.Evil}"),
    "a python tag": replaced("config.yaml", "seed: 0", "seed: !!python/object/apply:os.mkdir [canary]"),
    "a secret": replaced("config.yaml", "start_from: null", "start_from: ${oc.env:HOME}"),
    "a pickled checkpoint": checkpoint(lambda: pickle.dumps(Payload())),
    "a pickle in a checkpoint": checkpoint(saved),
    "a pickle in the gallery": gallery,
    "a link as scores": linked("scores.csv"),
    "a link as metrics": linked("metrics.jsonl"),
    "a link as quality": linked("quality.json"),
    "a link as lock": linked(".lock"),
    "a link as report": linked("report.html"),
    "a link as folder": linked_folder,
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_whatever_is_planted_no_code_runs_and_nothing_else_is_written(plant: str, run: Path) -> None:
    PLANTS[plant](run)
    mine = {path: path.read_bytes() for path in Path().glob("*") if path.is_file()}
    facts = json.loads((run / "provenance.json").read_text())
    for verb in VERBS:
        if verb == "resume":
            (run / "provenance.json").write_text(json.dumps({**facts, "finished": None}))
        words = [verb, str(run), *(["copy/headct/head_ct/head_ct/000.png"] if verb == "predict" else [])]
        done = CliRunner().invoke(__main__.app, words)
        said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        refused = verb != "report" and not plant.startswith(("a link as", "a pickle in the gallery"))
        assert done.exit_code in ((2,) if refused or "folder" in plant else (0, 2)), (verb, done.exception)
        assert len(said) == (done.exit_code == 2), (verb, done.stderr)
        assert not Path("canary").exists(), verb
        assert {path: path.read_bytes() for path in Path().glob("*") if path.is_file()} == mine, verb


EXPERIMENTS = {
    "toy.yaml": "extends: kde_headct\ndetector: {_target_: stranger.Evil}\n",
    "tag.yaml": "extends: kde_headct\nseed: !!python/object/apply:os.mkdir [canary]\n",
    "outside.yaml": "extends: kde_headct\nname: ../../outside\n",
    "studies/toy.yaml": "title: T\ndatasets: {headct: {title: H}}\nrows: {a: {title: A, experiment: toy}}\n",
    "studies/outside.yaml":
        "title: T\ndatasets: {headct: {title: H}}\nrows: {../../../outside: {title: A, experiment: kde_headct}}\n",
    "studies/secret.yaml": "title: '${oc.env:HOME}'\ndatasets: {headct: {title: H}}\nrows: {}\n",
    "studies/long.yaml":
        "title: T\ndatasets: {headct: {title: H}}\nrows: {a: {title: A, experiment: '{dataset:>99999999999}'}}\n",
}  # fmt: skip


@pytest.mark.parametrize("words", [
    "show toy", "data toy", "train toy", "train tag", "train outside", "study toy --dry-run", "study outside",
    "study secret --page", "study long --dry-run", "show kde_headct callbacks.x._target_=stranger.Evil",
    "show kde_headct name=/tmp/outside", "list",
])  # fmt: skip
def test_experiments_from_elsewhere_run_no_code(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger.py").write_text(STRANGER.replace("CANARY", repr(str(tmp_path / "canary"))))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in EXPERIMENTS.items():
        (path := tmp_path / "experiments" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = CliRunner().invoke(__main__.app, [*words.split(), *(["budget=smoke"] if words[:4] != "list" else [])])
    assert done.exit_code == (0 if words == "list" else 2), done.exception
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == (words != "list")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experiments", "stranger.py"]


def test_a_trusted_package_is_imported_and_only_where_its_class_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mygan.py").write_text(
        "from anomaly_lab.detectors.kde import KDE\nfrom pytorch_lightning import Callback\n"
        "class Mine(KDE): pass\nclass Seen(Callback): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ANOMALY_TRUST", "")  # restored at the end, whatever the commands set
    show = ["show", "kde_headct", "budget=smoke"]
    asked = [*show, "detector._target_=mygan.Mine", "callbacks.seen._target_=mygan.Seen"]
    assert "say --trust mygan" in CliRunner().invoke(__main__.app, asked).stderr
    assert "_target_: mygan.Mine" in al.show("kde_headct", trust="mygan", detector={"_target_": "mygan.Mine"})
    with pytest.raises(UserError, match="say --trust mygan"):
        al.show("kde_headct", detector={"_target_": "mygan.Mine"})
    done = CliRunner().invoke(__main__.app, [*asked, "--trust", "other", "--trust", "mygan"])
    assert "_target_: mygan.Seen" in done.output
    done = CliRunner().invoke(__main__.app, [*show, "--trust=mygan", "data._target_=mygan.Seen"])
    assert "data._target_: mygan.Seen is not a subclass of PatchDataModule" in done.stderr


def test_what_is_planted_into_the_pages_is_text(run: Path) -> None:
    for name in ("provenance.json", "metrics.json"):
        facts = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(_poisoned(facts) | {SCRIPT: SCRIPT}))
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + f"# {SCRIPT}\n")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"iteration": 4, SCRIPT: 1.0, f"train/{SCRIPT}": 2.0}) + "\n")
    replaced("scores.csv", "\n011,011,", "\n" + SCRIPT.replace('"', "") + ",011,")(run)
    page = run_commands.report(str(run)).read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert SCRIPT[:3] in page or "script&gt;" in page
    assert tags.scripts == scripts_of(page) == own()  # the page's own, which alone its policy lets run
    assert not [name for name in tags.attributes if name.startswith("on")]
    assert all(value.startswith("data:image/") for value in tags.sources)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.attributes, self.sources = list[str](), set[str](), set[str]()

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes |= {name for name, _ in attrs}
        self.sources |= {value or "" for name, value in attrs if name == "src"}


def _poisoned(value):
    """With a script after every text and in every list of texts, but for words of which other ones are refused."""
    if isinstance(value, dict):
        return {key: member if key in ("source", "rule") else _poisoned(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_poisoned(member) for member in value]
    return value + SCRIPT if isinstance(value, str) else value
