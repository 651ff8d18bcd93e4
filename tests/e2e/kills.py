"""Kills commands at changes of their files and at random moments, lets them go on, and compares the outcome.

    python tests/e2e/kills.py --kills 100 --seed 0 [--only ganomaly,store]

Every command is run in a fork of this process. It dies by SIGKILL just before the n-th change that it makes to a file
(opening it for writing, moving, linking or removing it, making a folder, synchronising), or after a random time. What
then goes on is `resume`, where there is a run folder, else the same command again. The outcome must equal that of a
command that nothing stopped, but for times, ids, the host and the entries `resumed`, and leave no file beside.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from anomaly_lab import __main__
from anomaly_lab.experiment import checkpoint_files

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
PASSING = {"started", "command", "id", "run", "seconds", "scoring_seconds", "peak_gb", "finished", "resumed", "git",
           "machine", "evaluated", "started_from", "wandb"}  # fmt: skip # of a record: times, ids, hosts
COMMON = ["budget=smoke", "data.source=twin", "data.twin.size=60", "data.split.train_normals=20", "data.batch_size=4",
          "data.epoch_length=3", "callbacks.record.every=2", "callbacks.wandb=null", "evaluation.replicates=20",
          "trainer.precision=32-true"]  # fmt: skip
FAKEPOOL = ["callbacks.fakepool={_target_: anomaly_lab.callbacks.fakepool.FakePool, every: 2, count: 4}"]
DETECTORS = {
    "adgan": ["detector.width=4", "detector.n_critic=2", "detector.gan_iterations=5", "detector.critic_iterations=4",
              "data.patch_size=[32,32]", *FAKEPOOL],
    "ganomaly": ["detector.width=4", "detector.gan_iterations=7", "data.patch_size=[32,32]"],
    "fanogan": ["detector.backbone=adgan", "detector.width=4", "detector.n_critic=2",
                "detector.gan_iterations=6", "detector.encoder_iterations=5",
                "data.patch_size=[32,32]", *FAKEPOOL, "start_from={wgan}"],
    "multi_kd": ["detector.distillation_iterations=7", "data.patch_size=[32,32]", "detector.cloner_width=4",
                 "detector.teacher_weights={teacher}", "detector.teacher_input=imagenet"],
    "deep_svdd": ["detector.pass_iterations=2", "detector.pretrain_iterations=4", "detector.sphere_iterations=4",
                  "detector.warmup_iterations=2", "data.patch_size=[32,32]"],
    "autoencoder": ["detector.reconstruction_iterations=7", "data.patch_size=[32,32]",
                    "callbacks.best={_target_: anomaly_lab.callbacks.best_test_epoch.BestTestEpoch}"],
    "kde": ["detector.samples=20"],
}  # fmt: skip
WGAN = ["detector.width=4", "detector.n_critic=2", "detector.gan_iterations=6", "data.patch_size=[32,32]", *FAKEPOOL]
STUDY = """
title: Kills
budget: smoke
datasets: {headct: {title: Head CT}}
rows:
  wgan: {title: WGAN, experiment: "wgan_{dataset}"}
  kde: {title: KDE, experiment: "kde_{dataset}", overrides: {detector.samples: 20}}
"""


# -- a command in a fork


@dataclass
class Ended:
    """How a command ended: exit status (-9: killed), seconds, the changes of files it made and what it printed."""

    status: int
    seconds: float
    changes: list[str] = field(default_factory=list)
    said: str = ""


def run(words: list[str], base: Path, die_at: int | None = None, after: float | None = None) -> Ended:
    """Run a command; die before its change number `die_at` of a file below `base`, or after a number of seconds."""
    log, said = base / "changes.txt", base / "said.txt"
    began, child = time.monotonic(), os.fork()
    if not child:
        _child(words, base, die_at, log, said)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    changes = log.read_text().splitlines() if log.exists() else []
    return Ended(os.waitstatus_to_exitcode(status), time.monotonic() - began, changes, said.read_text())


def _child(words: list[str], base: Path, die_at: int | None, log: Path, said: Path) -> None:
    changes, inside, sync = log.open("w", buffering=1), str(base), os.fsync
    number = 0

    def changed(what: str, path: object) -> None:
        nonlocal number
        if not str(path).startswith(inside) or str(path) in (str(log), str(said)):
            return
        if number == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        number += 1
        changes.write(f"{what} {_nameless(os.path.relpath(str(path), inside))}\n")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in CHANGES:
            changed(event.removeprefix("os."), args[1] if event in ("os.link", "os.symlink") else args[0])
        elif event == "open" and isinstance(args[2], int) and args[2] & WRITES:
            changed("open", args[0])

    def fsync(descriptor: int) -> None:
        changed("fsync", Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    try:
        sys.stderr = sys.stdout = said.open("w", buffering=1)
        os.dup2(sys.stderr.fileno(), 2)
        os.fsync = fsync
        sys.addaudithook(hook)
        sys.argv = ["anomaly_lab", *words]
        __main__.app(words, prog_name="anomaly_lab")
    except SystemExit as error:
        sys.stderr.flush()
        os._exit(error.code if isinstance(error.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _nameless(path: str) -> str:
    """A path without run ids, process ids and digests."""
    path = re.sub(r"\d{8}-\d{6}-\w+-twin-[0-9a-f]{4}", "RUN", path)
    path = re.sub(r"\.[\w-]+\.\d+\.partial", ".partial", re.sub(r"\.making\.[^/]*", ".making", path))
    return re.sub(r"-[0-9a-f]{12,16}\b", "-DIGEST", path)


# -- outcomes


def outcome_of_run(folder: Path) -> dict[str, Any]:
    """What must be the same of a run, by name."""
    files = {
        _nameless(str(path.relative_to(folder))): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "timings.jsonl")
    }
    known: dict[str, Any] = {"files": sorted(files)}
    for name, path in files.items():
        if path.suffix == ".ckpt":
            checkpoint = checkpoint_files.load(path)
            known[name] = {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "loops", "callbacks")}
        elif name == "provenance.json":
            facts: dict[str, Any] = json.loads(_nameless(path.read_text()))
            known[name] = {key: value for key, value in facts.items() if key not in PASSING}
        elif name == "report.html":
            known[name] = _report(path.read_text(), folder.name)
        elif name == "config.yaml":
            known[name] = path.read_text().replace(str(folder.parents[2]), "BASE")
        elif path.suffix != ".log":
            known[name] = path.read_bytes()
    known["metrics.json"] = known.get("metrics.json", "none")
    return known


def _report(page: str, name: str) -> str:
    """Without times and ids."""
    page = _nameless(page.replace(name, "RUN"))
    page = re.sub(r"<details><summary>Provenance</summary>.*?</details>", "", page, flags=re.DOTALL)
    page = re.sub(r"<details><summary>Resolved configuration</summary>.*?</details>", "", page, flags=re.DOTALL)
    page = re.sub(r"(<small>[^<]*iterations), [^<]*</small>", r"\1</small>", page)
    page = re.sub(r"<div><dt>(Time|Resumed)</dt>.*?</div>", "", page)
    page = re.sub(r'<p class="command">.*?</p>', "", page)
    return re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+00:00)?", "TIME", page)


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Where two outcomes differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            if key not in one or key not in other:
                yield f"{where}{key}: only {'after the kill' if key in other else 'without it'}"
            else:
                yield from differences(one[key], other[key], f"{where}{key}: ")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{where}{place}: ")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not (one.shape == other.shape and torch.equal(one, other)):
            yield f"{where}other tensor"
    elif one != other:
        if isinstance(one, list) and isinstance(other, list):
            yield f"{where}{sorted(set(map(str, one)) ^ set(map(str, other)))}"
        else:
            start = next((i for i, (a, b) in enumerate(zip(str(one), str(other), strict=False)) if a != b), 0)
            around = slice(max(0, start - 60), start + 60)
            yield f"{where}{str(one)[around]!r} became {str(other)[around]!r}"


# -- what is killed


@dataclass
class Target:
    """A command that is to be killed.

    Attributes:
        words: the command, given the folder below which it writes.
        prepare: brings that folder into the state before it.
        outcome: what must come out, read from the folder; a run folder's without one.
    """

    words: Callable[[Path], list[str]]
    prepare: Callable[[Path], None] = lambda base: None
    outcome: Callable[[Path], dict[str, Any]] | None = None

    def read(self, base: Path) -> dict[str, Any]:
        if self.outcome:
            return self.outcome(base)
        runs = run_folders(base)
        assert len(runs) == 1, f"{len(runs)} run folders: {runs}"
        hidden = [path.name for path in runs[0].parent.iterdir() if path.name.startswith(".")]
        return {**outcome_of_run(runs[0]), "beside the run": hidden}


def run_folders(base: Path) -> list[Path]:
    return sorted(path.parent for path in base.glob("runs/*/*/config.yaml") if not path.parent.name.startswith("."))


def tree(folder: Path) -> dict[str, Any]:
    """All files below a folder; locks and logs aside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kept = [path for path in files if not path.name.endswith((".lock", ".log")) and ".claims" not in path.parts]
    return {_nameless(str(path.relative_to(folder))): path.read_bytes() for path in kept}


def targets(work: Path) -> dict[str, Target]:
    """All of them; what they share is made in `work` at once."""
    store = work / "store"
    shared = {"teacher": work / "teacher.pth", "wgan": ""}
    from torchvision.models import squeezenet1_0

    torch.manual_seed(0)
    torch.save(squeezenet1_0().state_dict(), shared["teacher"])

    def train(experiment: str, more: list[str], base: Path, stores: Path = store) -> list[str]:
        words = [word.format(**shared) if word.endswith(("{wgan}", "{teacher}")) else word for word in more]
        return ["train", experiment, *COMMON, f"runs={base / 'runs'}", f"data.store.folder={stores}", *words]

    begun = run(train("wgan_headct", WGAN, work), work)
    assert begun.status == 0, begun.said
    (shared["wgan"],) = map(str, run_folders(work))  # type: ignore[assignment]
    Image.linear_gradient("L").resize((40, 30)).save(work / "grey.png")
    found = {
        name: Target(lambda base, name=name, more=more: train(f"{name}_headct", more, base))
        for name, more in DETECTORS.items()
    }

    def finished(base: Path) -> None:
        shutil.copytree(shared["wgan"], base / "runs" / "wgan_headct" / Path(shared["wgan"]).name)

    def on_finished(verb: str, *more: str) -> Callable[[Path], list[str]]:
        return lambda base: [verb, str(run_folders(base)[0]), *more]

    def store_of(base: Path) -> dict[str, Any]:
        """Without the key, in which the times of the twin's files are."""
        return {
            name: re.sub(rb'"key": "\w+"', b"", content) if name.endswith("done.json") else content
            for name, content in tree(base / "store").items()
        }

    (work / "experiments" / "studies").mkdir(parents=True)
    (work / "experiments" / "studies" / "kills.yaml").write_text(STUDY)
    settings = [word for word in COMMON if not word.startswith("budget")]

    def study(base: Path) -> list[str]:
        own = [*settings, f"data.store.folder={store}", f"runs={base / 'runs'}"]
        return ["--experiments", str(work / "experiments"), "study", "kills", "jobs=2", *own]

    def study_of(base: Path) -> dict[str, Any]:
        return {folder.parent.name: outcome_of_run(folder)["scores.csv"] for folder in run_folders(base)} | {
            "files": sorted(path.name for path in (base / "runs" / "studies" / "kills").iterdir())
        }

    return found | {
        "store": Target(
            lambda base: ["data", "headct", "budget=smoke", "data.source=twin", "data.twin.size=60",
                          "data.protocol=random", "data.split.train_normals=20",
                          f"data.store.folder={base / 'store'}", f"runs={base / 'runs'}"], outcome=store_of
        ),
        "evaluate": Target(on_finished("evaluate", "evaluation.quantile=0.5"), finished),
        "report": Target(on_finished("report"), finished),
        "predict": Target(
            lambda base: on_finished("predict", str(work / "grey.png"), "--out", str(base / "out"))(base), finished,
            lambda base: {name: content for name, content in tree(base / "out").items() if not name.endswith(".html")},
        ),
        "study": Target(study, outcome=study_of),
    }  # fmt: skip


# -- the campaign


@dataclass
class Campaign:
    """Kills of the targets, and what became of each.

    Attributes:
        work: folder for everything.
        draw: chooses places and moments.
        table: number of kills by target, place and verdict.
        faults: what did not heal.
    """

    work: Path
    draw: random.Random
    table: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    _count: int = 0

    def fresh(self, target: Target) -> Path:
        self._count += 1
        base = self.work / f"{self._count:04d}"
        base.mkdir()
        target.prepare(base)
        return base

    def attack(self, name: str, target: Target, kills: int) -> None:
        """Kill a target at `kills` places, one in five of them at a random moment."""
        base = self.fresh(target)
        whole = run(target.words(base), base)
        assert whole.status == 0, f"{name}: {whole.said}"
        expected = target.read(base)
        again = self.fresh(target)
        assert run(target.words(again), again).status == 0
        unequal = list(differences(expected, target.read(again)))
        assert not unequal, f"{name}: two straight runs differ: {unequal}"
        places = self.draw.sample(range(len(whole.changes)), min(len(whole.changes), kills - kills // 5))
        for place in sorted(places):
            self._kill(name, target, expected, whole.changes[place], die_at=place)
        for _ in range(kills - len(places)):
            self._kill(name, target, expected, "any moment", after=self.draw.uniform(0, whole.seconds))

    def _kill(self, name: str, target: Target, expected: dict[str, Any], place: str, **how: Any) -> None:
        base = self.fresh(target)
        words = target.words(base)
        killed = run(words, base, **how)
        verdict, said = ("healed", []) if killed.status == -9 else ("had ended", [])
        for _ in range(2):  # a run that had ended says so, and is as it should be
            if name in DETECTORS and run_folders(base):
                words = ["resume", str(run_folders(base)[0])]
            ended = run(words, base)
            if ended.status:
                break
            if words[0] != "resume":
                break
        finished = ended.status == 2 and ("is finished" in ended.said or "holds a finished result" in ended.said)
        if ended.status and not finished:
            said = [f"{words[0]}: status {ended.status}: {ended.said[-400:]}"]
        else:
            try:
                said = list(differences(expected, target.read(base)))
            except Exception as error:
                said = [f"cannot be read: {error!r}"]
        if said:
            verdict = "NOT HEALED"
            self.faults.append(f"{name}, {place} ({base.name}): " + "; ".join(said))
        else:
            shutil.rmtree(base)
        self.table[name, _kind(place), verdict] += 1
        print(f"{name}: {place}: {verdict}", flush=True)


def _kind(place: str) -> str:
    """Kind of a place, for the table."""
    what, _, path = place.partition(" ")
    last = Path(path).name.strip(".").removesuffix(".partial")
    last = re.sub(r"^\d+(-DIGEST)?", "N", last)
    return place if place == "any moment" else f"{what} {last}"


def main(words: list[str] | None = None) -> int:
    """Kill, print the table, and return 1 if anything did not heal."""
    parser = argparse.ArgumentParser("kills")
    parser.add_argument("--kills", type=int, default=100, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names of targets")
    parser.add_argument("--keep", type=Path, help="folder to work in, kept")
    asked = parser.parse_args(words)
    import anomaly_lab.pipeline.engine  # once, for all forks
    import anomaly_lab.studies.command  # noqa: F401

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = (asked.keep or Path(folder)).resolve()
        work.mkdir(exist_ok=True)
        campaign = Campaign(work, random.Random(asked.seed))
        chosen = {name: target for name, target in targets(work).items() if name in (asked.only or name).split(",")}
        for place, (name, target) in enumerate(chosen.items()):
            share = asked.kills // len(chosen) + (place < asked.kills % len(chosen))
            if share:
                campaign.attack(name, target, share)
    print(f"{'target':12} {'place':40} {'verdict':12} kills")
    for (name, place, verdict), number in sorted(campaign.table.items()):
        print(f"{name:12} {place:40} {verdict:12} {number}")
    print(f"{sum(campaign.table.values())} kills, {len(campaign.faults)} not healed")
    print("\n".join(campaign.faults))
    return bool(campaign.faults)


if __name__ == "__main__":
    sys.exit(main())
