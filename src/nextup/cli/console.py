"""What the commands share: printing, tables, examples, and `--set key=value`."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextup.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


@dataclass(frozen=True)
class Command:
    """A command: its function, and the examples below its help."""

    function: Callable[..., None]
    examples: str


def command(*examples: str) -> Callable[[Callable[..., None]], Command]:
    """Mark a function as a command with `examples`."""
    shown = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)
    return lambda function: Command(function, shown)


def main_process() -> bool:
    """Whether this is the process that speaks, where `torchrun` started several."""
    return os.environ.get("RANK", "0") == "0"


def show(what: RenderableType, title: str = "") -> None:
    """Print a result, with a line above it, to standard output."""
    if main_process():
        from rich.console import Console

        console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
        if title:
            console.print(title, markup=False, soft_wrap=True)
        console.print(what, markup=False)
        console.print()


def note(line: str) -> None:
    """Print something worth knowing to standard error, apart from the results."""
    if main_process():
        print(line, file=sys.stderr, flush=True)


def next_command(*words: object) -> None:
    """Name the command to type next."""
    note(f"next: {command_line(*words)}")


def error_line(message: str) -> None:
    """Print an error as one line."""
    note("error: " + " ".join(message.split()))


def command_line(*words: object) -> str:
    """Return a `nextup` command line, quoted where needed."""
    return shlex.join(["nextup", *(str(word) for word in words)])


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table; a column whose cells are all numbers is set to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[_cell(value) for value in row] for row in rows]
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for at, name in enumerate(columns):
        right = bool(cells) and all(_is_number(row[at]) for row in cells)
        made.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    for row in cells:
        made.add_row(*(Text(cell) for cell in row))
    return made


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _is_number(cell: str) -> bool:
    return not cell.strip("<+-.,%0123456789einfa ")


def parse_settings(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read ``key=value`` pairs; values are JSON or TOML scalars, else text.

    Examples
    --------
    >>> parse_settings(["dropout=0.2", "block=original", "inner=null", "bias=true", "seed=1_000"])
    {'dropout': 0.2, 'block': 'original', 'inner': None, 'bias': True, 'seed': 1000}

    Raises
    ------
    ConfigError
        If a pair has no ``=`` or a key is given twice.
    """
    settings: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"--set {pair}: write it as key=value, such as --set dropout=0.2")
        if key in settings:
            raise ConfigError(f"--set {pair}: `{key}` is set twice; keep one")
        settings[key] = _scalar(text.strip())
    return settings


def _scalar(text: str) -> Any:
    import json

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        pass
    try:
        return float(text)  # forms such as `.5`
    except ValueError:
        return text


def split_list(text: str | None) -> list[str] | None:
    """Read ``a,b,c`` as a list, or ``@FILE`` as the lines of a file.

    Raises
    ------
    ConfigError
        If the file is no text.
    """
    if text is None:
        return None
    if text.startswith("@"):
        try:
            lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise ConfigError(f"{text[1:]}: is no UTF-8 text; give one item id a line") from None
        return [line.strip() for line in lines if line.strip()]
    return [part.strip() for part in text.split(",") if part.strip()]


def column(given: str | None) -> str | int | None:
    """Return a column as a number where it is written as one."""
    return int(given) if given is not None and given.isdecimal() else given


typed: list[str] = []
"""The arguments that the command line was started with."""


@contextmanager
def stoppable(resumable: bool = False) -> Iterator[None]:
    """Let Ctrl-C or SIGTERM end a command with one line that says how to go on.

    Parameters
    ----------
    resumable
        Whether the same command goes on with ``--resume``; otherwise it starts again.
    """
    ended: list[int] = []

    def end(number: int, _: object) -> None:
        ended.append(number)
        raise KeyboardInterrupt

    # Of several processes each may wait for the others, where no signal is heard: those just end.
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    heard = alone and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end) if heard else None
    try:
        yield
    except KeyboardInterrupt:
        again = [word for word in typed if word not in ("--resume", "--overwrite")]
        if resumable:
            again.append("--resume")
        how = "go on with" if resumable else "nothing half-written is left; start again with"
        note(f"\nstopped; {how}: {command_line(*again)}")
        sys.exit(128 + (ended[0] if ended else signal.SIGINT))
    finally:
        if heard:
            signal.signal(signal.SIGTERM, before)
