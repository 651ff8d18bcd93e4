import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboard_runs import add_run

from anomaly_lab.dashboard import runs
from anomaly_lab.dashboard.runs import POINTS, SPARK, curves, find, read
from anomaly_lab.experiment.locks import lock, substitute
from anomaly_lab.types import UserError


def test_finds_run_folders_however_deep_but_no_hidden_ones_and_no_links(place: Path):
    assert len(find(place)) == 7
    (place / ".vae_set").symlink_to(place / "vae_set")
    (place / "link").symlink_to(place / "vae_set")
    (place / "vae_set").rename(place / "deep")
    (place / "more" / "deeper").mkdir(parents=True)
    (place / "deep").rename(place / "more" / "deeper" / "vae_set")
    assert "more/deeper/vae_set/0" in find(place)
    assert len(find(place)) == 7


def test_a_run_folder_is_no_place_of_runs(place: Path):
    with pytest.raises(UserError, match="is a run folder; name the folder that your runs lie in"):
        find(place / "vae_set" / "0")


def test_a_row_says_what_the_record_says(place: Path):
    run = place / "vae_set" / "1"
    metrics = json.loads((run / "metrics.json").read_text())
    row, config, curve = read(place, "vae_set/1")
    assert (row.state, row.experiment, row.detector, row.data) == ("finished", "vae_set", "VAE", "set")
    assert (row.source, row.budget, row.seed, row.parameters) == ("synthetic twin", "smoke", 1, 1234)
    auroc, difference = metrics["detector"]["auroc"], metrics["versus_baselines"]["difference"]
    assert (row.auroc, row.low, row.high) == (auroc["value"], auroc["low"], auroc["high"])
    assert (row.gain, row.gain_low, row.gain_high) == (difference["value"], difference["low"], difference["high"])
    assert (row.best, row.hours) == (metrics["versus_baselines"]["best"], 90 / 3600)
    assert (row.done, row.of, row.live, row.report) == (70, 100, None, False)
    assert config["detector.width"] == "8"
    assert "secret" not in str(config)
    assert curve["train/loss"][0] == [10, 20, 30, 40, 50, 60, 70]
    assert read(place, "pca_set/a").row.source == "real"
    assert read(place, "pca_set/a").row.report


def test_a_run_whose_evaluation_was_interrupted_has_no_figure(place: Path):
    """What its metrics say may be of another evaluation than its scores."""
    record = place / "vae_set" / "1" / "provenance.json"
    before = read(place, "vae_set/1").row
    record.write_text(json.dumps(json.loads(record.read_text()) | {"evaluating": "anew"}))
    row = read(place, "vae_set/1").row
    assert (row.auroc, row.low, row.gain, row.best) == (None, None, None, None)
    assert row.caveats == before.caveats + 1


def test_repeats_have_one_group_other_settings_another(place: Path):
    groups = [read(place, f"vae_set/{name}").row.group for name in ("0", "1", "2", "wide")]
    assert groups[0] == groups[1] == groups[2] != groups[3]


@pytest.mark.parametrize(
    "facts",
    [
        {"code": {"training": "other", "evaluation": "1"}},
        {"code": {"training": "1", "evaluation": "other"}},
        {"checkpoint": {"rule": "asked for", "iteration": 70, "file": "x"}},
        {"accepted_changes": [{"at": "2026-01-01", "verb": "evaluate", "changes": "1 picture is missing"}]},
    ],
)
def test_what_a_run_recorded_besides_settings_makes_it_no_repeat(place: Path, facts: dict[str, Any]):
    code = {"code": {"training": "1", "evaluation": "1"}, "checkpoint": {"rule": "last", "iteration": 100}}
    for seed in range(2):
        add_run(place, f"own_set/{seed}", 1.0, seed, **code)
    add_run(place, "own_set/other", 1.0, 2, **(code | facts))
    groups = [read(place, f"own_set/{name}").row.group for name in ("0", "1", "other")]
    assert groups[0] == groups[1] != groups[2]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"start_from": "/r/gan/1"}, {"start_from": "/r/gan/2"}, True),  # each from the GAN of its seed
        ({"start_from": "/r/gan/1"}, {"start_from": "/r/wide/2"}, False),
        ({"start_from": "/r/gan/1"}, {}, False),
        ({"data": {"split": {"file": "/a/split.csv"}}}, {"data": {"split": {"file": "/b/split.csv"}}}, False),
        ({}, {"callbacks": {"wandb": {"_target_": "anomaly_lab.callbacks.wandb.WandB"}}}, True),
        ({}, {"callbacks": {"best": {"_target_": "anomaly_lab.callbacks.best_test_epoch.BestTestEpoch"}}}, False),
        ({"detector": {"lr_generator": None}}, {"detector": {}}, True),  # a setting that older runs lack
        ({"detector": 3}, {"detector": 3}, True),  # of no version: by its settings
    ],
)
def test_starts_split_files_and_callbacks_that_change_scores_tell_runs_apart(
    place: Path, one: dict[str, Any], other: dict[str, Any], same: bool
):
    groups = []
    for seed, more in enumerate((one, other)):
        run = add_run(place, f"own_set/{seed}", 1.0, seed)
        content = yaml.safe_load((run / "config.yaml").read_text())
        for key, value in more.items():
            content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
        (run / "config.yaml").write_text(yaml.safe_dump(content))
        groups.append(read(place, f"own_set/{seed}").row.group)
    assert (groups[0] == groups[1]) == same


def test_two_starts_from_other_settings_of_one_experiment_are_no_repeats(place: Path):
    groups = []
    for seed, settings in enumerate(("a", "a", "b")):
        started = {"run": "x", "phase": "gan", "settings": settings}
        run = add_run(place, f"own_set/{seed}", 1.0, seed, started_from=started)
        with (run / "config.yaml").open("a") as file:
            file.write(f"start_from: /r/gan/{seed}\n")
        groups.append(read(place, f"own_set/{seed}").row.group)
    assert groups[0] == groups[1] != groups[2]


def test_a_run_is_running_while_a_process_holds_its_lock_and_looking_does_not_touch_the_lock(place: Path):
    path = "pca_set/stopped"
    assert (read(place, path).row.state, find(place)[path].held) == ("stopped", False)
    with lock(place / path / ".lock"):
        assert find(place)[path].held
        row = read(place, path, held=True).row
        assert (row.state, row.done, len(row.live or [])) == ("running", 70, 7)
    assert not find(place)[path].held


def test_a_run_is_running_where_the_kernel_does_not_list_locks_too(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runs, "_held", lambda: None)
    path = "pca_set/stopped"
    assert not find(place)[path].held
    with lock(place / path / ".lock"):
        assert find(place)[path].held
    assert not find(place)[path].held
    substitute(place / path / ".lock").touch()  # where the file system has no locks
    assert find(place)[path].held


@pytest.mark.parametrize(("name", "content", "why"), [
    ("provenance.json", "[]", "provenance.json cannot be read (it holds no mapping)"),
    ("provenance.json", '{"seed": "zero"}', "provenance.json is damaged (seed is 'zero'"),
    ("provenance.json", "[" * 100_000, "provenance.json cannot be read"),
    ("metrics.json", '{"detector": {"auroc": {"value": NaN}}}', "NaN is no number of JSON"),
    ("config.yaml", "!!python/object/apply:os.system ['touch executed']", "could not determine a constructor"),
    ("config.yaml", "a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]\n" * 9, ""),
    ("config.yaml", "- 1", "config.yaml holds no mapping"),
    ("config.yaml", "\n".join(f"k{i}: 1" for i in range(3000)), "more than 2000 settings"),
    ("config.yaml", "a: \xff\n", ""),
])  # fmt: skip
def test_a_damaged_or_hostile_run_is_a_row_that_says_why(place: Path, name: str, content: str, why: str):
    (place / "vae_set" / "0" / name).write_bytes(content.encode("latin-1"))
    row = read(place, "vae_set/0").row
    assert row.state == "unreadable"
    assert why in str(row.why)
    assert str(place) not in str(row.why)
    assert not Path("executed").exists()


def test_a_link_out_of_the_run_a_pipe_and_a_giant_are_not_read(place: Path):
    run = place / "vae_set" / "0"
    (place.parent / "private.yaml").write_text("password: 1")
    (run / "config.yaml").unlink()
    (run / "config.yaml").symlink_to(place.parent / "private.yaml")
    assert read(place, "vae_set/0").row.why == "config.yaml is a link out of the run folder"
    (place / "vae_set/2/samples").rename(place.parent / "pictures")
    (place / "vae_set/2/samples").symlink_to(place.parent / "pictures")
    assert read(place, "vae_set/2").row.why == "samples is a link out of the run folder"
    (run / "config.yaml").unlink()
    os.mkfifo(run / "config.yaml")
    assert "it is no file" in str(read(place, "vae_set/0").row.why)
    with (place / "vae_set" / "1" / "scores.csv").open("wb") as file:
        file.truncate(runs.LARGEST + 1)
    assert "bytes; more than" in str(read(place, "vae_set/1").row.why)


def test_a_folder_without_one_of_its_files_and_a_name_that_is_no_text(place: Path):
    (place / "vae_set" / "0" / "provenance.json").unlink()
    (place / "vae_set" / "1" / "config.yaml").unlink()
    assert read(place, "vae_set/0").row.why == "provenance.json is missing"
    assert read(place, "vae_set/1").row.why == "config.yaml is missing"
    odd = Path(os.fsdecode(os.fsencode(place) + b"/\xff\xfe"))
    (place / "vae_set" / "2").rename(odd)
    assert "its name is not UTF-8" in str(read(place, odd.name).row.why)


def test_curves_are_thinned_out_and_what_is_no_number_is_left_out():
    log = [{"iteration": i, "train/loss": i / 2, "train/bad": "x", "other": 1} for i in range(1000)]
    x, y = curves(log)["train/loss"]
    assert (len(x), x[0], x[-1], y[-1]) == (POINTS, 0, 999, 499.5)
    assert list(curves(log)) == ["train/loss"]
    assert list(curves([{"iteration": 1, f"train/{i}": 1.0} for i in range(20)])) != []


def test_the_small_curve_is_the_first_one_that_has_something_to_show(place: Path):
    path = place / "pca_set/stopped/metrics.jsonl"
    lines = [{"iteration": i, "train/loss": float(i), **({"val/score": 9.0} if i == 3 else {})} for i in range(6)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert read(place, "pca_set/stopped").row.live == [0, 1, 2, 3, 4, 5]
    path.write_text(f"{json.dumps(lines[3])}\n")
    assert read(place, "pca_set/stopped").row.live == [9.0]


def test_a_long_log_is_read_in_parts_from_the_first_line_to_the_last(place: Path):
    run = place / "pca_set" / "stopped"
    lines = [json.dumps({"iteration": i, "train/loss": 1.0, "padding": "x" * 80}) for i in range(60_000)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + '\n{"iteration": 60')
    assert (run / "metrics.jsonl").stat().st_size > runs.SPARSE
    row, _, curve = read(place, "pca_set/stopped")
    assert row.done == 59_999
    assert len(row.live or []) == SPARK
    assert curve["train/loss"][0] == sorted(curve["train/loss"][0])


def test_a_log_with_rubbish_in_it_is_read_around_it(place: Path):
    run = place / "pca_set" / "stopped"
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(
            b'\xff\xfe\n[1]\n{"iteration": "x"}\n{"iteration": 1e999}\n{"iteration": 90, "train/loss": 1e400}\n{"it'
        )
    assert read(place, "pca_set/stopped").row.done == 90


def test_runs_are_read_without_torch(place: Path):
    """A page over all runs should not wait for what trains them."""
    with (place / "vae_set" / "0" / "config.yaml").open("a") as file:
        file.write("callbacks: {wandb: {_target_: anomaly_lab.callbacks.wandb.WandB}}\n")
    program = (
        "import sys, pathlib\n"
        "from anomaly_lab.dashboard.runs import read\n"
        f"assert read(pathlib.Path({str(place)!r}), 'vae_set/0').row.group\n"
        "print(*(name for name in ('torch', 'pytorch_lightning') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_repeats_whose_best_checkpoints_differ_are_repeats(place: Path):
    """Each training has its own best iteration; only a checkpoint that somebody asked for is another thing."""
    for seed, iteration in enumerate((40, 70)):
        add_run(place, f"own_set/{seed}", 1.0, seed, checkpoint={"rule": "best validation", "iteration": iteration})
    groups = [read(place, f"own_set/{seed}").row.group for seed in range(2)]
    assert groups[0] == groups[1]
