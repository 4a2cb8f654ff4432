"""Cells are run, and what became of them is said: shared by `nextup study` and `nextup tune`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from nextup.cli import console
from nextup.cli.console import command_line, error_line, note

if TYPE_CHECKING:
    from nextup.studies.runner import Outcome, Runner


def run_all(made: Runner, what: str = "run") -> Outcome:
    """Run cells to their end or as far as the budget allows; Ctrl-C stops them in order.

    Parameters
    ----------
    made
        What runs them.
    what
        What one of them is called.
    """
    from nextup.studies.runner import clear

    again = command_line(*(word for word in console.typed if word != "--overwrite"))
    with made as runner:
        try:
            outcome = runner.run()
        except KeyboardInterrupt:
            note(f"\nstopping; each {what} goes on from its last checkpoint")
            runner.stop()
            clear(runner.places, runner.outcome.done)
            note(f"stopped; go on with: {again}")
            sys.exit(130)
    clear(made.places, outcome.done)
    note(f"{len(outcome.done)} {what}s done")
    if outcome.busy:
        note(f"{len(outcome.busy)} are being run by another process: {', '.join(outcome.busy)}")
    if outcome.left:
        note(f"time is up, {len(outcome.left)} {what}s are left; go on with: {again}")
    return outcome


def end_if_any_failed(outcome: Outcome) -> None:
    """Name what failed, a line for each reason, and end with exit code 1 if anything did."""
    for reason, names in outcome.failed.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        error_line(f"{names[0]}{more}: {reason}")
    if outcome.failed:
        raise typer.Exit(1)
