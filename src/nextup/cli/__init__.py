"""The command line: one function a command, none with logic of its own.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from nextup.cli import console
from nextup.cli.about import demo, doctor, models
from nextup.cli.answers import recommend, similar
from nextup.cli.consistency import consistency
from nextup.cli.data import prepare
from nextup.cli.runs import compare, evaluate, fit
from nextup.cli.studies import report, study
from nextup.cli.tune import tune
from nextup.errors import NextupError

app = typer.Typer(
    name="nextup",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help is there in half the time of boxes and colours.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

USAGE = """\b
The way from a log to recommendations:
  nextup prepare ratings.csv              a dataset folder: data/ratings
  nextup fit data/ratings                 a run folder: runs/ratings-sasrec-seed0
  nextup evaluate runs/ratings-sasrec-seed0
  nextup recommend runs/ratings-sasrec-seed0 "Toy Story" Alien
\b
Or all of it on a simulated shop:
  nextup demo"""


def _version(wanted: bool) -> None:
    if wanted:
        import nextup

        typer.echo(f"nextup {nextup.__version__}")
        raise typer.Exit


@app.callback(epilog=USAGE)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Sequential recommendation: from the order of what people did, what each will want next."""


_COMMANDS = (
    *(prepare, fit, evaluate, compare, consistency, recommend, similar),
    *(models, study, tune, report, doctor, demo),
)
for _command in _COMMANDS:
    app.command(epilog=_command.examples)(_command.function)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error that the user can mend is one line, and exit code 2."""
    console.typed[:] = sys.argv[1:] if arguments is None else arguments
    try:
        app(console.typed, prog_name="nextup")
    except NextupError as error:
        console.error_line(str(error))
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno is None:
            raise
        full = "; free some disk space and try again" if error.errno == errno.ENOSPC else ""
        where = f"{error.filename}: " if error.filename else ""
        console.error_line(f"{where}{error.strerror}{full}")
        sys.exit(2)
