import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from anomaly_lab import __main__
from anomaly_lab.experiment import compose, config
from anomaly_lab.types import UserError

VERBS = [
    "list",
    "show",
    "data",
    "train",
    "resume",
    "evaluate",
    "quality",
    "predict",
    "serve",
    "card",
    "report",
    "study",
    "bench",
    "runs",
    "dashboard",
]


def run(*words: str):
    return CliRunner().invoke(__main__.app, words)


def test_help_names_every_verb_and_loads_nothing_heavy():
    script = "import sys; from anomaly_lab.__main__ import app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pytorch_lightning", "monai", "omegaconf", "numpy", "wandb"} & set(loaded)
    shown = run("--help").output
    assert all(f" {verb} " in shown for verb in VERBS)


def test_a_users_error_is_one_line_and_status_2(monkeypatch: pytest.MonkeyPatch):
    def refuse(name: str, overrides: list[str]) -> None:
        raise UserError(f"no experiment '{name}' [{len(overrides)} overrides]\n" + "long " * 40 + "line")

    monkeypatch.setattr(config, "load", refuse)
    result = run("train", "nope", "a=1")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: no experiment 'nope' [1 overrides] long")
    assert result.stderr.count("\n") == 1


def test_an_interrupt_is_one_line_and_status_130(monkeypatch: pytest.MonkeyPatch):
    def interrupt(name: str, overrides: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "load", interrupt)
    result = run("show", "toy")
    assert result.exit_code == 130
    assert result.stderr.startswith("interrupted")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compose, "detectors", lambda: [1 / 0])
    assert isinstance(run("list").exception, ZeroDivisionError)


@pytest.mark.parametrize("words", [["train"], ["no-such-verb"], ["resume"], ["show", "--nope"]])
def test_wrong_usage_is_status_2(words: list[str]):
    assert run(*words).exit_code == 2


def test_list_shows_the_packages_pairs_and_ones_own_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("experiments").mkdir()
    Path("experiments/toy.yaml").write_text("# A toy [bold].\n")
    lines = run("list").output.splitlines()
    assert lines[0].split()[:2] == ["detector", "abmnist"]
    assert ["toy", "A toy [bold]."] in [line.split(maxsplit=1) for line in lines]
    assert "\x1b" not in "".join(lines)


def test_show_prints_what_was_loaded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(config, "load", lambda name, overrides: {"name": name, "overrides": overrides})
    monkeypatch.setattr(config, "show", lambda shown: f"{shown}\n")
    assert run("show", "toy", "seed=3", "x=-1").output == "{'name': 'toy', 'overrides': ['seed=3', 'x=-1']}\n"


@pytest.mark.parametrize("words", [
    ["--experiments", "mine", "show", "kde_headct"], ["show", "--experiments", "mine", "kde_headct"],
    ["show", "kde_headct", "seed=3", "--experiments=mine"],
])  # fmt: skip
def test_ones_own_experiments_are_named_before_or_after_the_verb(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANOMALY_EXPERIMENTS", "")  # restored afterwards
    Path("mine/pairs").mkdir(parents=True)
    Path("mine/pairs/kde_headct.yaml").write_text("detector: {samples: 77}\nbudgets: {smoke: {detector.samples: 78}}\n")
    shown = run(*words, "budget=smoke").output
    assert "samples: 78\n" in shown
    assert "- mine/pairs/kde_headct\n" in shown


def test_a_folder_of_experiments_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANOMALY_EXPERIMENTS", "")
    result = run("list", "--experiments", "nowhere")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: nowhere: no such experiments folder")


def test_a_path_below_the_home_folder_is_there_however_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Shells expand ~ in some places only: dash not in `make … INTO=~/run`, bash not in `--into=~/run`."""
    from anomaly_lab.pipeline import engine

    monkeypatch.setenv("HOME", str(tmp_path))
    seen: list[object] = []
    monkeypatch.setattr(engine, "train_by_name", lambda *asked: seen.append(asked))
    monkeypatch.setattr(engine, "resume", lambda run, words, asked: seen.append((run, asked.root)))
    for words in (["--into", "~/run"], ["--into=~/run"]):
        assert run("train", "kde_headct", *words).exit_code == 0
    assert run("resume", "~/run", "--data-root=~/data").exit_code == 0
    into = str(tmp_path / "run")
    assert seen == [("kde_headct", [], into)] * 2 + [(into, str(tmp_path / "data"))]


@pytest.mark.parametrize(("name", "kind"), [
    ("headct", "load_data"), ("fanogan_headct", "load"), ("hedct", "load_data"), ("kde_", "load"),
])  # fmt: skip
def test_data_takes_a_data_set_or_an_experiment(name: str, kind: str, monkeypatch: pytest.MonkeyPatch):
    from anomaly_lab.pipeline import engine

    seen = []
    monkeypatch.setattr(config, "load", lambda name, overrides: ("load", name, overrides))
    monkeypatch.setattr(config, "load_data", lambda name, overrides: ("load_data", name, overrides))
    monkeypatch.setattr(engine, "inspect", lambda config, verify: seen.append(config))
    assert run("data", name, "seed=3").exit_code == 0
    assert seen == [(kind, name, ["seed=3"])]


@pytest.fixture
def front_door(tmp_path: Path) -> Path:
    """A folder with our Makefile, whose .venv has a python that only prints its arguments."""
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("""#!/bin/sh\nshift 2\nfor word in "$@"; do echo "$word"; done\n""")
    python.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copyfile(Path(__file__).parent.parent / name, tmp_path / name)
    (tmp_path / ".venv/.complete").touch()
    return tmp_path


def make(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *words], cwd=folder, env=environment | variables, capture_output=True, text=True, check=False
    )


def test_make_hands_every_override_over_as_it_was_typed(front_door: Path):
    typed = [
        "a.b[0]=x",
        "betas=[0.5,  0.9]",
        "lr=-1e-4",
        "map={a: 1,b: 2}",
        "name=it's; `id`",
        "root=${oc.env:X}/y",
    ]
    done = make(front_door, "train", "EXP=toy", "PYTHON=python3", "OMP_NUM_THREADS=1", *typed)
    assert done.stdout.splitlines() == ["train", "toy", *typed]


def test_make_neither_expands_nor_runs_what_a_path_holds(front_door: Path):
    """Files that were received may be called anything."""
    hostile = ["a$HOME b", "x$y", "$(shell touch ran)", "`touch ran`", "it's, $$"]
    for name in hostile:
        done = make(front_door, "predict", f"RUN={name}", f"INPUT={name}", f"OUT={name}", f"seed={name}")
        assert done.stdout.splitlines() == ["predict", name, name, "--out", name, f"seed={name}"]
        assert make(front_door, "train", "EXP=e", f"INTO={name}").stdout.splitlines() == ["train", "e", "--into", name]
    assert not (front_door / "ran").exists()


@pytest.mark.parametrize("no", ["0", "no", "false", "off", ""])
def test_make_takes_no_for_no_and_nothing_from_the_environment(front_door: Path, no: str):
    words = ["predict", "RUN=r", "INPUT=i", f"OVERWRITE={no}", f"ANYWAY={no}"]
    assert make(front_door, *words).stdout.splitlines() == ["predict", "r", "i"]
    done = make(front_door, "predict", "RUN=r", "INPUT=i", OVERWRITE="1", OUT="/tmp/o", MASKS="m")
    assert done.stdout.splitlines() == ["predict", "r", "i"]
    words = ["resume", "RUN=r", f"ACCEPT_CHANGED_DATA={no}"]
    assert make(front_door, *words, DATA_ROOT="/d").stdout.splitlines() == ["resume", "r"]


@pytest.mark.parametrize(
    ("words", "stray"),
    [
        (["study", "STUDY=x", "DRY_RUN=1"], "DRY_RUN; it takes STUDY DATA DRY PAGE STATUS"),
        (["predict", "RUN=r", "INPUT=i", "MASK=m"], "MASK; it takes RUN INPUT OUT MASKS OVERWRITE ANYWAY"),
        (["predict", "RUN=r", "INPUT=i", "CHECKPOINT=c"], "CHECKPOINT; it takes RUN"),
        (["resume", "RUN=r", "DATAROOT=d"], "DATAROOT; it takes RUN DATA_ROOT ACCEPT_CHANGED_DATA"),
        (["runs", "RUNS=folder"], "RUNS; it takes no such word"),
    ],
)
def test_make_refuses_a_capital_word_that_it_would_pass_over(front_door: Path, words: list[str], stray: str):
    done = make(front_door, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"make {words[0]} takes no {stray}" in done.stderr


@pytest.mark.parametrize("verb", ["export", "card", "report", "serve", "quality", "evaluate"])
def test_make_hands_words_of_no_target_over_to_be_answered(front_door: Path, verb: str):
    assert make(front_door, verb, "RUN=r", "format=pt2").stdout.splitlines() == [verb, "r", "format=pt2"]


@pytest.mark.parametrize("word", ["DATA=headct", "EXP=headct"])
def test_make_hands_a_data_set_over(front_door: Path, word: str):
    assert make(front_door, "data", word, "seed=1").stdout.splitlines() == ["data", "headct", "seed=1"]


def test_make_hands_a_run_and_its_input_over(front_door: Path):
    done = make(front_door, "predict", "RUN=runs/a b", "INPUT=it's")
    assert done.stdout.splitlines() == ["predict", "runs/a b", "it's"]
    words = ["OUT=a b", "MASKS=m", "OVERWRITE=1", "ANYWAY=1", "seed=1"]
    done = make(front_door, "predict", "RUN=r", "INPUT=i", *words)
    options = ["--out", "a b", "--masks", "m", "--overwrite", "--anyway", "seed=1"]
    assert done.stdout.splitlines() == ["predict", "r", "i", *options]
    assert make(front_door, "report", "RUN=r", "seed=1").stdout.splitlines() == ["report", "r", "seed=1"]


@pytest.mark.parametrize(("whole", "status"), [(True, 0), (False, 3)])
def test_predict_hands_over_what_was_asked_and_tells_by_its_status_whether_all_was_scored(
    monkeypatch: pytest.MonkeyPatch, whole: bool, status: int
):
    from anomaly_lab.pipeline import run_commands
    from anomaly_lab.pipeline.predict import Request

    seen = []

    def predict(*asked: object) -> SimpleNamespace:
        seen.append(asked)
        return SimpleNamespace(is_whole=whole)

    monkeypatch.setattr(run_commands, "predict", predict)
    words = ["--out", "o", "--masks", "m", "--overwrite", "--anyway", "data.store.scoring_batch_size=8"]
    assert run("predict", "r", "i", *words).exit_code == status
    assert seen == [("r", Request(Path("i"), Path("m"), "o", True, True), words[-1:])]


@pytest.mark.parametrize("verb", ["runs", "dashboard"])
def test_the_page_of_all_runs_is_given_its_words(front_door: Path, monkeypatch: pytest.MonkeyPatch, verb: str):
    from anomaly_lab.dashboard import command

    seen: list[list[str]] = []
    monkeypatch.setattr(command, {"runs": "write", "dashboard": "serve"}[verb], seen.append)
    assert make(front_door, verb, "runs=a b").stdout.splitlines() == [verb, "runs=a b"]
    assert (run(verb).exit_code, run(verb, "runs=a b").exit_code) == (0, 0)
    assert seen == [[], ["runs=a b"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "which experiment? make train EXP=…"),
        (["data"], "which data set? make data DATA=…"),
        (["show"], "which experiment?"),
        (["resume"], "which run? make resume RUN=runs/…"),
        (["predict", "RUN=x"], "which files?"),
    ],
)
def test_make_says_what_is_missing(front_door: Path, words: list[str], message: str):
    done = make(front_door, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)


def test_make_rebuilds_a_half_built_environment_and_wants_python_3_11(front_door: Path):
    (front_door / ".venv/.complete").unlink()
    old = make(front_door, "list", "PYTHON=/no/python")
    assert (old.returncode, "Python 3.11 or newer is needed" in old.stderr) == (2, True)
    steps = make(front_door, "--dry-run", "setup").stdout
    assert steps.index("rm -rf .venv") < steps.index("-m venv .venv") < steps.index("touch .venv/.complete")


def test_make_alone_lists_its_targets(front_door: Path):
    listed = make(front_door).stdout
    assert all(f"make {target} " in listed for target in (*VERBS, "setup", "test-slow", "check", "docker", "clean"))


def test_the_list_fits_a_pipe_that_is_closed_early():
    command = f"{sys.executable} -m anomaly_lab list | head -1; exit ${{PIPESTATUS[0]}}"
    root = Path(__file__).parents[1]
    done = subprocess.run(["bash", "-c", command], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("detector")


@pytest.mark.parametrize(
    ("number", "file"), [(errno.ENOSPC, None), (errno.EACCES, "runs/a.json"), (errno.EMFILE, None)]
)
def test_a_failure_of_the_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, number: int, file: str | None) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number), file)

    monkeypatch.setattr("anomaly_lab.experiment.config.load", fail)
    done = CliRunner().invoke(__main__.app, ["show", "fanogan_headct"])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {file}: " if file else f"error: {os.strerror(number)}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [(MemoryError(), "out of memory"), (RuntimeError("[enforce fail at DefaultCPUAllocator] can't allocate"), "out of"),
     ("\udcff".encode, "is not UTF-8")],
)  # fmt: skip
def test_what_the_machine_cannot_do_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Any, said: str) -> None:
    def fail(*_: object) -> None:
        if isinstance(error, Exception):
            raise error
        error()

    monkeypatch.setattr("anomaly_lab.experiment.config.load", fail)
    done = CliRunner().invoke(__main__.app, ["show", "fanogan_headct"])
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", ["show", "train", "data"])
def test_a_word_that_is_no_text_is_refused_before_anything_is_written(verb: str, tmp_path: Path) -> None:
    done = run(verb, "kde_headct", "budget=smoke", f"runs={tmp_path}/\udcff")
    assert done.exit_code == 2
    assert "is not UTF-8" in done.stderr
    assert not list(tmp_path.iterdir())
