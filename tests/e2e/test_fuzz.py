"""Whatever is damaged or misspelt, a command ends within seconds in one line that says what is wrong.

ANOMALY_FUZZ=20 tries twenty times as much as the suite does.
"""

import importlib
import os
import random
import resource
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fuzzing
import pytest
from data.conftest import write_headct
from launching import launch
from omegaconf import OmegaConf
from PIL import Image

from anomaly_lab.experiment import compose, config, run_folder
from anomaly_lab.pipeline import engine

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TIMES = float(os.environ.get("ANOMALY_FUZZ", "1"))
SEED = int(os.environ.get("ANOMALY_FUZZ_SEED", "0"))
GIGABYTES = 2.0  # that this process may come to
STUDY = """
title: Fuzz
budget: smoke
datasets: {headct: {title: Head CT}}
rows: {fanogan: {title: f-AnoGAN, experiment: "fanogan_{dataset}"}}
"""


class Place:
    """A folder with thirteen pictures, a finished run on them and one that is not finished."""

    def __init__(self, base: Path) -> None:
        self.base = base
        write_headct(base / "headct")
        (base / "new").mkdir()
        Image.linear_gradient("L").resize((40, 30)).save(base / "new" / "grey.png")
        (base / "experiments" / "studies").mkdir(parents=True)
        (base / "experiments" / "studies" / "fuzz.yaml").write_text(STUDY)
        self.finished = engine.train(config.load("fanogan_headct", self.words("finished")))
        self.unfinished = base / "unfinished" / "fanogan_headct" / self.finished.name
        shutil.copytree(self.finished, self.unfinished)
        for name in ("scores.csv", "metrics.json", "report.html", "samples/gallery.npz"):
            (self.unfinished / name).unlink()
        max((self.unfinished / "checkpoints").iterdir()).unlink()
        facts = run_folder.read_json(self.unfinished / "provenance.json")
        run_folder.write_json(self.unfinished / "provenance.json", {k: v for k, v in facts.items() if k != "finished"})

    def words(self, runs: str) -> list[str]:
        """The overrides of a run of four iterations that writes below `runs`."""
        return [
            "budget=smoke", f"runs={self.base / runs}", f"data.root={self.base / 'headct'}", "data.patch_size=[32,32]",
            f"data.store.folder={self.base / 'store'}", "data.batch_size=4", "data.epoch_length=2", "detector.width=4",
            "data.protocol=random", "data.split.train_normals=8", "data.split.val_fraction=0.25",
            "detector.gan_iterations=2",
            "detector.encoder_iterations=2", "detector.n_critic=1", "callbacks.wandb=null", "evaluation.replicates=20",
            "trainer.precision=32-true",
        ]  # fmt: skip

    def on_run(self, verb: str, run: Path) -> list[str]:
        """The words of a command that looks at a run folder."""
        if verb == "study":
            mine = [word for word in self.words("") if not word.startswith(("runs=", "budget="))]
            return ["study", "fuzz", "--page", f"runs={run.parent.parent}", "code=any", *mine]
        more = {"predict": [str(self.base / "new"), "--out", str(run.parent / "out")]}
        return [verb, str(run), *more.get(verb, [])]

    def copied(self, source: Path, number: int) -> Path:
        """A copy of a run, in place of any earlier one."""
        shutil.rmtree(self.base / "copies", ignore_errors=True)
        return Path(shutil.copytree(source, self.base / "copies" / str(number) / "fanogan_headct" / source.name))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written relative to the working folder is written there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANOMALY_EXPERIMENTS", str(place.base / "experiments"))
    for name in ("runs", "store"):
        (tmp_path / name).mkdir()


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def report(faults: list[str], tried: int) -> None:
    """Fail with the faults, those of one place together."""
    print(f"{len(faults)} faults in {tried}, {dict(fuzzing.ended)}; peak memory {peak():.2f} GB")
    places = Counter(line.rpartition(" at ")[2] for line in faults)
    assert not faults, "\n".join([f"{len(faults)} of {tried}", *map(str, places.most_common()), *faults])
    assert peak() < GIGABYTES


VERBS = {"finished": ("evaluate", "predict", "report", "study", "resume"), "unfinished": ("resume", "report", "study")}


def test_a_damaged_run_folder_is_used_or_refused_in_one_line(place: Place) -> None:
    draw, faults, tried = random.Random(SEED), [], 0
    for number in range(round(25 * TIMES)):
        state = draw.choice(["finished", "finished", "unfinished"])
        run = place.copied(getattr(place, state), number)
        done = fuzzing.damage(draw, run)
        for verb in draw.sample(VERBS[state], 2):
            tried += 1
            if fault := fuzzing.fault(*place.on_run(verb, run)):
                faults.append(f"{number}: {done}: {fault}")
        shutil.rmtree(place.base / "copies")
    report(faults, tried)


def test_hostile_overrides_are_taken_or_refused_in_one_line(place: Place, tmp_path: Path) -> None:
    settings = OmegaConf.to_container(config.load("fanogan_headct", place.words("runs")))
    keys = [key for key, _ in compose.leaves(settings)]
    likely = [str(value) for _, value in compose.leaves(settings)]
    keys += [*sorted({key.rpartition(".")[0] for key in keys if "." in key}), "start_from", "extends", "at_most"]
    options = ["jobs", "code", "rows", "datasets", "seeds", "runs", "budget"]
    draw, faults, tried = random.Random(SEED), [], 0
    unlike = {"trainer.devices", "trainer.num_nodes", "trainer.strategy"}  # would start processes of this one
    for number in range(round(50 * TIMES)):
        verb = draw.choice(["train", "train", "train", "data", "show", "evaluate", "resume", "study"])
        words = fuzzing.hostile_words(draw, [*keys, *options * 3] if verb == "study" else keys, likely)
        if verb in ("train", "resume") and any(word.partition("=")[0] in unlike for word in words):
            verb = "show"
        begun: dict[str, Callable[[int], list[str]]] = {
            "train": lambda _: ["train", "fanogan_headct", *place.words("runs")],
            "show": lambda _: ["show", "fanogan_headct", "budget=smoke"],
            "data": lambda _: ["data", "fanogan_headct", *place.words("runs")],
            "evaluate": lambda n: ["evaluate", str(place.copied(place.finished, n))],
            "resume": lambda n: ["resume", str(place.copied(place.unfinished, n))],
            "study": lambda _: ["study", "fuzz", "--page", f"runs={place.base / 'runs'}"],
        }
        tried += 1
        if fault := fuzzing.fault(*begun[verb](number), *words):
            faults.append(fault)
        shutil.rmtree(place.base / "copies", ignore_errors=True)
        shutil.rmtree(place.base / "runs", ignore_errors=True)
    report(faults, tried)


def test_mutated_experiments_and_studies_are_read_or_refused_in_one_line(place: Place, tmp_path: Path) -> None:
    draw, faults, tried = random.Random(SEED), [], 0
    sources = sorted(compose.package_folder().rglob("*.yaml"))
    for number in range(round(40 * TIMES)):
        source = draw.choice(sources)
        folder = tmp_path / "experiments"
        file = folder / source.relative_to(compose.package_folder())
        file.parent.mkdir(parents=True)
        shutil.copy(source, file)
        act = draw.choice([fuzzing.yaml_edited, fuzzing.yaml_edited, fuzzing.lines_edited, fuzzing.torn])
        act(draw, file)
        group = file.parent.name
        name = {"detectors": f"{file.stem}_headct", "datasets": f"kde_{file.stem}"}.get(group, file.stem)
        name = "kde_headct" if file.stem == "defaults" else name
        verb = ["study", name, "--page", "budget=smoke", f"runs={tmp_path / 'runs'}"]
        verb = verb if group == "studies" else draw.choice([["show", name, "budget=smoke"], ["list"]])
        tried += 1
        if fault := fuzzing.fault("--experiments", folder, *verb):
            faults.append(f"{number}: {act.__name__} {file.relative_to(folder)}: {fault}")
        shutil.rmtree(folder)
    report(faults, tried)


def test_some_of_it_through_the_real_command_line(place: Place) -> None:
    draw = random.Random(SEED)
    for number in range(round(3 * max(1, TIMES / 10))):
        run = place.copied(place.finished, number)
        done = fuzzing.damage(draw, run)
        ended = launch("-m", "anomaly_lab", *place.on_run(draw.choice(VERBS["finished"]), run))
        assert ended.returncode in (0, 1, 2), (done, ended.stderr)
        assert "Traceback" not in ended.stderr, (done, ended.stderr)


@pytest.mark.parametrize("verb", ["resume", "evaluate", "report", "predict", "study"])
def test_a_run_folder_that_cannot_be_written_is_said_in_one_line(place: Place, verb: str) -> None:
    for path in (place.base, *place.base.parents):
        if path.stat().st_mode & 0o001 == 0 and path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o055)
    run = place.copied(place.unfinished if verb == "resume" else place.finished, 0)
    importlib.import_module("anomaly_lab.studies.command")  # the interpreter itself may lie in a superuser's home
    with fuzzing.powerless():
        fault = fuzzing.fault(*place.on_run(verb, run))
    shutil.rmtree(place.base / "copies")
    assert not fault
