"""The command line: python -m anomaly_lab VERB. Heavy imports wait inside the verbs, --help is quick."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from anomaly_lab.types import UserError

INTERRUPTED = 130  # the shell's status for Ctrl-C


class FrontDoor(TyperGroup):
    """Turns a user's error into one line and exit status 2; every other exception keeps its traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--experiments DIR` before the verb and after it."""
        return list(super().parse_args(ctx, _to_the_front("--experiments", args)))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            _complain(f"error: {error}")
            raise typer.Exit(2) from error
        except BrokenPipeError as error:  # who reads the list has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit from error
        except KeyboardInterrupt as error:
            _complain("interrupted; whatever has a run folder is continued by `make resume RUN=…`")
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=FrontDoor,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: half the start-up time
)

Name = Annotated[str, typer.Argument(metavar="EXP", help="An experiment; `list` shows all.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="key=value", help="For example detector.latent_dim=64 seed=1."),
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")]


@app.callback()
def about(
    experiments: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Your own experiments, laid over the package's; or set ANOMALY_EXPERIMENTS."),
    ] = None,
) -> None:
    """Trains, judges and compares anomaly detectors for medical and X-ray images."""
    if experiments is not None:
        os.environ["ANOMALY_EXPERIMENTS"] = experiments  # the runs of a study see it, too


@app.command("list")
def list_experiments() -> None:
    """Show which detector can be trained on which data set, and the experiments of your own."""
    from anomaly_lab.experiment.listing import listing

    console = Console()
    for line in listing(console.width if console.is_terminal else None):
        typer.echo(line)


@app.command()
def show(experiment: Name, overrides: Overrides = None) -> None:
    """Print the whole resolved experiment, every default filled in."""
    from anomaly_lab.experiment import config

    typer.echo(config.show(config.load(experiment, overrides or [])), nl=False)


@app.command()
def data(
    name: Annotated[str, typer.Argument(metavar="DATA", help="A data set or an experiment; `list` shows all.")],
    overrides: Overrides = None,
) -> None:
    """Build a data set's store, or reuse it, and write its data sheet."""
    from anomaly_lab.experiment import compose, config

    names_experiment = name in compose.whole_files() or name.startswith(tuple(f"{d}_" for d in compose.detectors()))
    resolved = (config.load if names_experiment else config.load_data)(name, overrides or [])
    from anomaly_lab.pipeline import engine

    engine.inspect(resolved)


@app.command()
def train(experiment: Name, overrides: Overrides = None) -> None:
    """Train an experiment, judge it and write its report."""
    from anomaly_lab.experiment import config

    config.load(experiment, overrides or [])  # before the engine is imported: a typo is answered sooner
    from anomaly_lab.pipeline import engine

    engine.train_by_name(experiment, overrides or [])


@app.command()
def resume(run: Run) -> None:
    """Continue a stopped run as if nothing had happened."""
    from anomaly_lab.pipeline import engine

    engine.resume(run)


@app.command()
def evaluate(run: Run) -> None:
    """Judge a run again, from its folder alone."""
    from anomaly_lab.pipeline import engine

    engine.evaluate(run)


@app.command()
def predict(
    run: Run,
    images: Annotated[str, typer.Argument(metavar="INPUT", help="A folder of images.")],
    out: Annotated[str | None, typer.Option(help="Where the results go, if not beside the run.")] = None,
    masks: Annotated[str | None, typer.Option(help="Known lesions, named like the images: only shown.")] = None,
) -> None:
    """Score new files with a trained run: scores.csv, maps and a page."""
    from anomaly_lab.pipeline import engine

    engine.predict(run, images, out, masks)


@app.command()
def report(run: Run) -> None:
    """Write a run's report again, from its folder alone."""
    from anomaly_lab.pipeline import engine

    engine.report(run)


@app.command()
def study(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="A file of experiments/studies, without .yaml.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="key=value", help="jobs=2 seeds=[0,1] rows=[…] …; other keys go to every run."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run, and for how long.")] = False,
    page: Annotated[bool, typer.Option("--page", help="Train nothing, write the page of what is finished.")] = False,
) -> None:
    """Train what a study lacks and write its page, tables and tests."""
    from anomaly_lab.studies import command

    raise typer.Exit(command.main(name, words or [], dry_run, page))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench(arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENTS")] = None) -> None:
    """Measure speed and memory against a bare hand-written loop."""
    from anomaly_lab.bench import command

    command.main(arguments or [])


def _to_the_front(option: str, words: list[str]) -> list[str]:
    """The words of a command line with an option and its value before all others."""
    for i, word in enumerate(words):
        if word == option or word.startswith(f"{option}="):
            taken = words[i : i + (2 if word == option else 1)]
            return [*taken, *words[:i], *words[i + len(taken) :]]
    return words


def _complain(line: str) -> None:
    Console(stderr=True).print(Text(" ".join(line.split()), style="red"), soft_wrap=True)


def main() -> None:
    """The console script `anomaly-lab`."""
    app(prog_name="anomaly-lab")


if __name__ == "__main__":
    app(prog_name="python -m anomaly_lab")
