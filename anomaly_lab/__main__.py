"""Command line: `python -m anomaly_lab COMMAND`. Commands import what they need, so that `--help` is fast."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from anomaly_lab.pipeline import launchers
from anomaly_lab.types import FailedElsewhereError, UserError

INTERRUPTED = 130  # exit status of shells after Ctrl-C
INCOMPLETE = 3  # exit status if some files could not be scored, or some runs not be evaluated


class FrontDoor(TyperGroup):
    """Command group that prints a UserError, or a failure of the disk, as one line and exits with status 2.

    All other exceptions keep their traceback.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Accept `--experiments DIR` and `--trust PACKAGE` both before and after the command, and ~/ in paths."""
        args = [_at_home(arg) for arg in args]
        return list(super().parse_args(ctx, _to_the_front(("--experiments", "--trust"), args)))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FailedElsewhereError as error:
            raise typer.Exit(error.status) from error
        except UserError as error:
            _complain(f"error: {error}")
            raise typer.Exit(2) from error
        except BrokenPipeError as error:  # the reader of the pipe has exited, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit from error
        except OSError as error:  # of the machine: a full disk, a folder that may not be read, too many open files
            if error.errno is None:
                raise
            what = f"{error.filename}: " if error.filename else ""
            _complain(f"error: {what}{error.strerror}; check the disk, its permissions and limits")
            raise typer.Exit(2) from error
        except UnicodeEncodeError as error:  # a name of a file that the system does not hold as UTF-8
            _complain(f"error: {str(error.object)[:200]!r} is not UTF-8; rename the file or folder")
            raise typer.Exit(2) from error
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            _complain("error: out of memory; make data.batch_size, data.patch_size or the detector smaller")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            _complain("interrupted; to continue a run that has a run folder: make resume RUN=…")
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=FrontDoor,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help halves the start-up time
)

Name = Annotated[str, typer.Argument(metavar="EXP", help="Name of an experiment; `list` shows all.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="key=value", help="Settings to override, such as detector.latent_dim=64 seed=1."),
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Path of a run folder.")]
DataRoot = Annotated[
    str | None, typer.Option(metavar="DIR", help="Where the run's files lie now; compared by content.")
]
AcceptChanges = Annotated[
    bool, typer.Option("--accept-changed-data", help="Use what is left of the recorded split; the report says so.")
]


@app.callback()
def about(
    experiments: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of your own experiments, which override the package's; or set ANOMALY_EXPERIMENTS.",
        ),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PACKAGE",
            help="Package of your own whose classes experiments and runs may name; or set ANOMALY_TRUST.",
        ),
    ] = None,
) -> None:
    """Train, evaluate and compare anomaly detectors for medical and X-ray images."""
    from anomaly_lab.experiment.trust import trust as confer_trust

    if experiments is not None:
        os.environ["ANOMALY_EXPERIMENTS"] = experiments  # inherited by the processes of a study
    confer_trust(trust or [])


@app.command("list")
def list_experiments() -> None:
    """List all detectors, data sets and experiments."""
    from anomaly_lab.experiment.listing import listing

    console = Console()
    for line in listing(console.width if console.is_terminal else None):
        typer.echo(line)


@app.command()
def show(experiment: Name, overrides: Overrides = None) -> None:
    """Print a resolved experiment with all default values."""
    from anomaly_lab.experiment import config

    typer.echo(config.show(config.load(experiment, overrides or [])), nl=False)


@app.command()
def data(
    name: Annotated[str, typer.Argument(metavar="DATA", help="Name of a data set or experiment; `list` shows all.")],
    overrides: Overrides = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the whole store with its hashes; otherwise a sample is compared.")
    ] = False,
) -> None:
    """Build or reuse the store of a data set and write its data sheet."""
    from anomaly_lab.experiment import compose, config

    names_experiment = name in compose.whole_files() or name.startswith(tuple(f"{d}_" for d in compose.detectors()))
    resolved = (config.load if names_experiment else config.load_data)(name, overrides or [])
    from anomaly_lab.pipeline import engine

    engine.inspect(resolved, verify)


@app.command()
def train(
    experiment: Name,
    overrides: Overrides = None,
    into: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="The run folder, chosen beforehand; an unfinished run in it is continued."),
    ] = None,
) -> None:
    """Train an experiment, evaluate it and write its report."""
    from anomaly_lab.pipeline import slurm

    with slurm.requeued(Path(into)) if into else nullcontext():
        from anomaly_lab.experiment import config

        if launchers.launched() is None:  # several processes meet first, so that one of them says what is wrong
            config.load(experiment, overrides or [])  # validated before the slow import of the engine
        from anomaly_lab.pipeline import engine

        engine.train_by_name(experiment, overrides or [], into)


@app.command()
def resume(
    run: Run, overrides: Overrides = None, data_root: DataRoot = None, accept_changed_data: AcceptChanges = False
) -> None:
    """Continue a stopped run; the result equals that of an uninterrupted run."""
    from anomaly_lab.pipeline import engine
    from anomaly_lab.pipeline.identity import DataAsked

    engine.resume(run, overrides or [], DataAsked(data_root, accept_changed_data))


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Path of a run folder, or of a folder of runs.")],
    overrides: Overrides = None,
    data_root: DataRoot = None,
    accept_changed_data: AcceptChanges = False,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another checkpoint than the last; the report says so.")
    ] = None,
) -> None:
    """Score and evaluate a trained run again, with its data; or all runs below a folder.

    scores=recorded evaluates the scores as they stand in scores.csv, without data and checkpoint. Over a folder the
    exit status is 3 if a run could not be evaluated.
    """
    from anomaly_lab.pipeline import run_commands
    from anomaly_lab.pipeline.identity import DataAsked
    from anomaly_lab.pipeline.reevaluate import runs_below

    asked = DataAsked(data_root, accept_changed_data)
    if runs_below(Path(run)):
        if not run_commands.evaluate_all(run, overrides or [], asked, checkpoint):
            raise typer.Exit(INCOMPLETE)
        return
    run_commands.evaluate(run, overrides or [], asked, checkpoint)


@app.command()
def quality(
    run: Run, overrides: Overrides = None, data_root: DataRoot = None, accept_changed_data: AcceptChanges = False
) -> None:
    """Measure the images that a trained run generates and reconstructs against validation normals.

    Takes samples=2000 (the largest number of images of a set), features=efficientnet_lite0 and weights=package, or a
    file of weights of another classifier. Writes quality.json into the run folder, and the report again.
    """
    from anomaly_lab.pipeline import run_commands
    from anomaly_lab.pipeline.identity import DataAsked

    run_commands.quality(run, overrides or [], DataAsked(data_root, accept_changed_data))


@app.command()
def predict(
    run: Run,
    images: Annotated[str, typer.Argument(metavar="INPUT", help="An image or scan, or a folder of them.")],
    overrides: Overrides = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder for the results, new or empty; by default a new one.")
    ] = None,
    masks: Annotated[str | None, typer.Option(help="Known lesions, named like the images; only displayed.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a former result of the run in --out.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Score files of another nature than the run's, too; the page says so.")
    ] = False,
) -> None:
    """Score new files with a trained run.

    Writes scores.csv, anomaly maps and an HTML page. If it is stopped, the same command with the same --out goes on.
    The exit status is 3 if some files could not be scored.
    """
    from pathlib import Path

    from anomaly_lab.pipeline import run_commands
    from anomaly_lab.pipeline.predict import Request

    request = Request(Path(images), Path(masks) if masks else None, out, overwrite, anyway)
    if not run_commands.predict(run, request, overrides or []).is_whole:
        raise typer.Exit(INCOMPLETE)


@app.command()
def export(
    run: Run,
    format: Annotated[
        str, typer.Option(metavar="FORMAT", help="onnx, which is scored without torch, or pt2, for programs with it.")
    ] = "onnx",
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder for the files; by default exports/FORMAT of the run.")
    ] = None,
) -> None:
    """Export a trained run as one model file and export.json, after a comparison with the run itself."""
    from anomaly_lab.pipeline.export import export_run

    export_run(run, format, out)


@app.command()
def serve(run: Run, overrides: Overrides = None) -> None:
    """Score the scans that are sent to this machine with a trained run; needs the extra `serve`.

    Takes host, port, queue, max_mb, max_megavoxels, max_gb, timeout and upload_timeout; see docs/serving.md.
    """
    from anomaly_lab.serving import command

    command.main(run, overrides or [])


@app.command()
def card(run: Run) -> None:
    """Write model_card.md and claim.md, a filled checklist for papers, into a run folder."""
    from anomaly_lab.pipeline import run_commands

    run_commands.card(run)


@app.command()
def report(run: Run) -> None:
    """Write the report of a run again."""
    from anomaly_lab.pipeline import run_commands

    run_commands.report(run)


@app.command()
def tune(
    experiment: Name,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="key=value",
            help="params='detector.lr=log(1e-5,1e-2) …', trials=20, prune=true, folder=…; others apply to all trials.",
        ),
    ] = None,
) -> None:
    """Choose settings of an experiment by lesions planted on validation normals; the test split is not looked at."""
    try:
        from anomaly_lab.tuning import tuner
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError("tune: Optuna is not installed; pip install 'anomaly_lab[tune]'") from error
    tuner.tune(experiment, words or [])


@app.command()
def study(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="Name of a file in experiments/studies, without .yaml.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="key=value",
            help="jobs=2, launcher=slurm, seeds=[0,1] and the like; other settings apply to all runs.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print which runs are missing and how long they would take.")
    ] = False,
    page: Annotated[bool, typer.Option("--page", help="Train nothing; write the page from the finished runs.")] = False,
    status: Annotated[
        bool,
        typer.Option("--status", help="Train nothing; print which runs are finished, run, wait or failed, and why."),
    ] = False,
) -> None:
    """Train the missing runs of a study and write its page."""
    from anomaly_lab.studies import command

    raise typer.Exit(command.main(name, words or [], dry_run, page, status))


@app.command()
def runs(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="runs=folder", help="Where the run folders lie; runs by default.")
    ] = None,
) -> None:
    """Write one page over all runs, to sort, filter and compare them: dashboard.html beside them."""
    from anomaly_lab.dashboard import command

    command.write(words or [])


@app.command()
def dashboard(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="key=value", help="runs=folder, port=8765; only this machine can connect."),
    ] = None,
) -> None:
    """Serve the page over all runs to this machine; it follows runs that are training."""
    from anomaly_lab.dashboard import command

    command.serve(words or [])


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench(arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENTS")] = None) -> None:
    """Measure speed and memory against a plain training loop."""
    from anomaly_lab.bench import command

    command.main(arguments or [])


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an error says so, be it Python's, NumPy's or PyTorch's, which is not imported for this."""
    torch_says = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return isinstance(error, MemoryError) or torch_says


def _at_home(arg: str) -> str:
    """Return a path below the home folder as some shells leave it, also behind `--option=`, without its ~."""
    option, equals, path = arg.partition("=") if arg.startswith("--") else ("", "", arg)
    return f"{option}{equals}{Path(path).expanduser()}" if path.startswith("~/") else arg


def _to_the_front(options: tuple[str, ...], words: list[str]) -> list[str]:
    """Move options and their values to the front of a command line's words."""
    front, rest, left = list[str](), list[str](), list(words)
    while left:
        word = left.pop(0)
        if word in options and left:
            front += [word, left.pop(0)]
        elif word in options or word.startswith(tuple(f"{option}=" for option in options)):
            front.append(word)
        else:
            rest.append(word)
    return front + rest


def _complain(line: str) -> None:
    if not launchers.speaks():
        return
    harmless = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in " ".join(line.split()))
    Console(stderr=True).print(Text(harmless, style="red"), soft_wrap=True)


def main() -> None:
    """Run the console script `anomaly-lab`."""
    app(prog_name="anomaly-lab")


if __name__ == "__main__":
    app(prog_name="python -m anomaly_lab")
