"""The runner: what is there is found, what is missing is trained, what fails is reported and left behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from study_runs import planned

from anomaly_lab.studies.plan import Key
from anomaly_lab.studies.runner import look_up, progress


def states(outcomes):
    return {key.row: outcome.state for key, outcome in outcomes.items()}


def test_a_second_start_trains_nothing_and_ends_in_the_same_runs(stub):
    plan = [planned("a"), planned("b"), planned("a", seed=1)]
    first, second = stub().run_all(plan), stub().run_all(plan)
    assert {o.state for o in first.values()} == {"trained"}
    assert {o.state for o in second.values()} == {"found"}
    assert [o.run for o in first.values()] == [o.run for o in second.values()]
    assert len(stub.calls()) == 3


def test_a_run_is_found_by_what_it_is_not_by_its_name_or_place(stub, tmp_path):
    made = stub().run_all([planned("a")])
    renamed = planned("a", name="other", data={"root": "elsewhere"})
    assert stub().run_all([renamed]) == {key: o.__class__("found", o.run) for key, o in made.items()}
    assert stub().run_all([planned("a", width=3)])[Key("a", "set", 0)].state == "trained"


def test_other_data_or_other_code_are_another_run(stub, tmp_path, monkeypatch):
    (made,) = stub().run_all([planned("a")]).values()
    facts = json.loads((made.run.folder / "provenance.json").read_text())
    (made.run.folder / "provenance.json").write_text(json.dumps(facts | {"code": "older"}))
    assert look_up(stub().ledger, [planned("a")]) == {Key("a", "set", 0): None}
    assert stub(code="any").run_all([planned("a")])[Key("a", "set", 0)].state == "found"
    monkeypatch.setattr("anomaly_lab.studies.ledger.data_fingerprint", lambda section: "other")
    assert look_up(stub(code="any").ledger, [planned("a")]) == {Key("a", "set", 0): None}


def test_what_other_code_evaluated_is_evaluated_again_not_trained(stub):
    (made,) = stub().run_all([planned("a")]).values()
    record = made.run.folder / "provenance.json"
    facts = json.loads(record.read_text())
    record.write_text(json.dumps(facts | {"code": facts["code"] | {"evaluation": "older"}}))
    assert stub(code="any").run_all([planned("a")])[Key("a", "set", 0)].state == "found"
    assert stub().run_all([planned("a")])[Key("a", "set", 0)].state == "evaluated"
    assert stub.calls()[1:] == [f"evaluate {made.run.folder}"]
    assert stub().run_all([planned("a")])[Key("a", "set", 0)].state == "found"


@pytest.mark.parametrize(("finished", "verb"), [(True, "evaluate"), (False, "resume")])
def test_a_run_whose_files_moved_is_told_where_they_lie(stub, tmp_path, monkeypatch, finished, verb):
    """It is found by what they contain, wherever that is."""
    (made,) = stub().run_all([planned("a")]).values()
    record = made.run.folder / "provenance.json"
    facts = json.loads(record.read_text()) | {"source": "real"} | ({} if finished else {"finished": None})
    facts |= {"code": facts["code"] | {"evaluation": "older"}}
    here = SimpleNamespace(source="real", folder=tmp_path / "new")
    monkeypatch.setattr("anomaly_lab.studies.ledger._set_up", lambda section: here)
    for root, said in ((tmp_path / "new", ""), (tmp_path / "old", f" --data-root {tmp_path / 'new'}")):
        record.write_text(json.dumps(facts | {"data": facts["data"] | {"root": str(root)}}))
        assert stub().run_all([planned("a")])[Key("a", "set", 0)].run.folder == made.run.folder
        expected = f"{verb} {made.run.folder}{said}" if said or finished else "train a"
        assert stub.calls()[-1].startswith(expected)


def test_an_evaluation_that_fails_leaves_no_result_of_other_code(stub):
    """The run was finished before, and is of an older evaluation still."""
    (made,) = stub().run_all([planned("a")]).values()
    record = made.run.folder / "provenance.json"
    facts = json.loads(record.read_text())
    record.write_text(json.dumps(facts | {"code": facts["code"] | {"evaluation": "older"}}))
    config = made.run.folder / "config.yaml"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"fail": True}))
    failing = planned("a", fail=True)
    assert progress(stub().ledger, [failing])[failing.key].startswith("to be evaluated again")
    outcome = stub().run_all([failing])[failing.key]
    assert stub.calls()[-1] == f"evaluate {made.run.folder}"
    assert (outcome.state, outcome.run) == ("failed", None)
    assert outcome.reason.startswith("error: it is broken")


def test_after_a_kill_other_data_have_a_run_of_their_own(stub, monkeypatch):
    """A claim's name leaves out where the data lie, and what they are is known only when they are read."""
    (killed,) = stub().run_all([planned("a", die_once=True)]).values()
    assert killed.state == "failed"
    monkeypatch.setattr("anomaly_lab.studies.ledger.data_fingerprint", lambda section: "other")
    stub().run_all([planned("a", die_once=True, data={"root": "elsewhere"})])
    assert len(list(stub().ledger.runs.glob("a/*"))) == 2


def test_a_failed_run_is_reported_and_the_rest_goes_on(stub):
    plan = [planned("bad", fail=True), planned("child", start="bad"), planned("good")]
    outcomes = stub(jobs=2).run_all(plan)
    assert states(outcomes) == {"bad": "failed", "child": "failed", "good": "trained"}
    assert outcomes[Key("bad", "set", 0)].reason == f"error: it is broken ({stub.log('bad-set-seed0')})"
    assert "bad-set-seed0" in outcomes[Key("child", "set", 0)].reason
    assert sum("[3/3]" in line for line in stub.said) == 1


def test_a_killed_run_is_resumed(stub):
    plan = [planned("a", die_once=True)]
    assert states(stub().run_all(plan)) == {"a": "failed"}
    assert states(stub().run_all(plan)) == {"a": "resumed"}
    assert [call.split()[0] for call in stub.calls()] == ["train", "train"]


def test_a_run_starts_from_anothers_folder_and_is_known_by_it(stub, tmp_path):
    plan = [planned("base"), planned("child", start="base")]
    outcomes = stub(jobs=2).run_all(plan)
    base, child = outcomes[Key("base", "set", 0)].run, outcomes[Key("child", "set", 0)].run
    assert json.loads((child.folder / "config.yaml").read_text())["start_from"] == str(base.folder)
    assert states(stub().run_all(plan)) == {"base": "found", "child": "found"}
    other = [planned("base", width=5), planned("child", start="base")]
    assert states(stub().run_all(other)) == {"base": "trained", "child": "trained"}


def test_two_rows_that_are_the_same_run_share_it(stub):
    one = planned("a")
    outcomes = stub(jobs=2).run_all([one, replace(one, key=Key("b", "set", 0))])
    assert len({outcome.run for outcome in outcomes.values()}) == 1
    assert len(stub.calls()) == 1


def test_a_study_killed_half_way_runs_only_what_is_missing(stub, tmp_path):
    plan = [planned(name) for name in "abcd"]
    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from pathlib import Path
        from study_runs import planned
        from anomaly_lab.studies import ledger
        from anomaly_lab.studies.jobs import Local
        from anomaly_lab.studies.runner import Runner
        ledger.data_fingerprint = lambda section: "data"
        def say(line):
            if line.startswith("[2/"):
                os.kill(os.getpid(), signal.SIGKILL)
        command = (sys.executable, {str(tmp_path / "stub.py")!r})
        at = ledger.Ledger(Path({str(tmp_path / "runs")!r}))
        runner = Runner(at, Path({str(tmp_path / "logs")!r}), Local(), say, command)
        runner.run_all([planned(name) for name in "abcd"])
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=dict(os.environ), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert states(stub().run_all(plan)) == {"a": "found", "b": "found", "c": "trained", "d": "trained"}
    assert sorted(call.split()[1] for call in stub.calls()) == list("abcd")


def test_an_interrupted_study_leaves_no_run_alone(stub, tmp_path):
    runner, alive = stub(), tmp_path / "alive"
    runner.command = (sys.executable, "-c", f"import time; open({str(alive)!r}, 'w').close(); time.sleep(60)")

    def interrupt_when_it_runs():
        while not alive.exists():
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of pytest-xdist ignores it
    threading.Thread(target=interrupt_when_it_runs, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        runner.run_all([planned("a")])
    signal.signal(signal.SIGINT, before)
    assert [line for line in stub.said if "interrupted" in line] == [
        "the study is interrupted: its runs have stopped; the same command takes it up again"
    ]
    assert not [each for each in psutil.process_iter(["cmdline"]) if str(alive) in " ".join(each.info["cmdline"] or [])]
