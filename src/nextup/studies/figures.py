"""The figures of a report; matplotlib is imported where something is drawn."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nextup.errors import ConfigError
from nextup.studies.consistent import overlaps
from nextup.studies.document import Picture
from nextup.studies.measured import Block, Row
from nextup.studies.published import published
from nextup.studies.results import Result
from nextup.studies.study import Part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT, _DOTS = 4.4, 3.0, 140


@dataclass(frozen=True)
class Palette:
    """The colours of a figure; those of the lines are told apart by the colour-blind as well."""

    ink: str
    paper: str
    grid: str
    lines: tuple[str, ...]


LIGHT = Palette("#1c1e21", "#ffffff", "#dfe3e8", ("#0072b2", "#d55e00", "#009e73", "#aa4499"))
DARK = Palette("#e4e7eb", "#15181c", "#323840", ("#56b4e9", "#f0a04b", "#3fc69b", "#dd8ecb"))

Draw = Callable[["Figure", Palette], None]


def check_matplotlib() -> None:
    """Raise ConfigError, with the remedy, where figures cannot be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ConfigError(
            "report: figures need matplotlib; install it with `pip install matplotlib`, or "
            "leave figures out with --no-figures"
        ) from None


def picture(name: str, about: str, size: tuple[float, float], draw: Draw) -> Picture:
    """Draw a figure of so many columns and rows of panels, once on light and once on dark."""
    light, dark = (_png(palette, size, draw) for palette in (LIGHT, DARK))
    return Picture(name, about, light, dark)


def _png(palette: Palette, size: tuple[float, float], draw: Draw) -> bytes:
    from matplotlib.figure import Figure

    with _style(palette):
        columns, rows = size
        figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows), layout="constrained")
        draw(figure, palette)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=_DOTS, metadata={"Software": ""})
    return out.getvalue()


@contextmanager
def _style(palette: Palette) -> Iterator[None]:
    from matplotlib import rc_context

    settings: Any = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), palette.ink),
        **dict.fromkeys(("xtick.color", "ytick.color"), palette.ink),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), palette.paper),
        "legend.frameon": False,
        "axes.edgecolor": palette.grid,
        "grid.color": palette.grid,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": "medium",
        "font.size": 9,
    }
    with rc_context(settings):
        yield


def sweep_picture(name: str, part: Part, blocks: Sequence[Block]) -> Picture | None:
    """Draw metrics over what is swept: a column a dataset, a row a metric; None without runs."""
    drawn = [block for block in blocks if any(row.measured for row in block.rows)]
    if not drawn:
        return None

    def draw(figure: Figure, palette: Palette) -> None:
        panels = _panels(figure, len(part.headline), len(drawn))
        for column, block in enumerate(drawn):
            for line, metric in enumerate(part.headline):
                _sweep(panels[line][column], part, block, metric, palette)

    about = f"{part.title}. Mean over seeds, with its 95% interval over seeds and users"
    lined = part.line and any(_line(part, block, part.headline[0]) for block in drawn)
    about += f"; dashed: {part.line} as published." if lined else "."
    return picture(name, about, (len(drawn), len(part.headline)), draw)


def _panels(figure: Figure, rows: int, columns: int) -> list[list[Axes]]:
    axes = figure.subplots(rows, columns, squeeze=False)
    return [list(row) for row in axes]


def _shape(panels: int) -> tuple[int, int]:
    """Return columns and rows of so many panels, two beside each other."""
    return min(panels, 2), -(-panels // 2)


def _paired(figure: Figure, panels: int) -> list[Axes]:
    columns, rows = _shape(panels)
    made = [axes for row in _panels(figure, rows, columns) for axes in row]
    for unused in made[panels:]:
        unused.set_visible(False)
    return made[:panels]


def _line(part: Part, block: Block, metric: str) -> float | None:
    return published(part.published).value(block.dataset, part.line or "", metric)


def _sweep(axes: Axes, part: Part, block: Block, metric: str, palette: Palette) -> None:
    rows = [row for row in block.rows if row.method.at is not None]
    lines = list(dict.fromkeys(row.method.series for row in rows))
    rows.sort(key=lambda row: row.method.at or 0.0)
    # The second colour is that of published figures.
    for colour, line in zip([palette.lines[0], *palette.lines[2:]], lines, strict=False):
        points = [
            (row.method.at, row.measured[metric].value)
            for row in rows
            if row.method.at is not None and row.method.series == line and metric in row.measured
        ]
        places = [place for place, _ in points]
        lows, means, highs = (
            [getattr(value, key) for _, value in points] for key in ("low", "mean", "high")
        )
        axes.plot(places, means, marker="o", color=colour, label=line or None)
        axes.fill_between(places, lows, highs, color=colour, alpha=0.2, linewidth=0)
    value = _line(part, block, metric)
    if value is not None:
        axes.axhline(value, linestyle="--", color=palette.lines[1])
    axes.set_xticks(sorted({row.method.at for row in rows if row.method.at is not None}))
    axes.set(title=block.dataset, xlabel=part.axis, ylabel=metric)
    if len(lines) > 1:
        axes.legend()


def table_picture(name: str, part: Part, blocks: Sequence[Block]) -> Picture | None:
    """Draw published and own figures of a table side by side; None without runs."""
    metric = part.headline[-1]
    drawn = [block for block in blocks if any(row.measured for row in block.rows)]
    if not drawn:
        return None

    def draw(figure: Figure, palette: Palette) -> None:
        for axes, block in zip(_paired(figure, len(drawn)), drawn, strict=True):
            _dots(axes, [row for row in block.rows if _shown(row, metric)], metric, palette)
            axes.set(title=block.dataset, xlabel=metric)

    most = max(sum(_shown(row, metric) for row in block.rows) for block in drawn)
    about = (
        f"{part.title}. {metric}: ours with its 95% interval over seeds and users (dot), as "
        "published (ring), published and impossible (cross)."
    )
    columns, rows = _shape(len(drawn))
    return picture(name, about, (columns, rows * (0.26 * most + 0.9) / _HEIGHT), draw)


def _shown(row: Row, metric: str) -> bool:
    return metric in row.measured or (row.published is not None and metric in row.published.values)


def _dots(axes: Axes, rows: Sequence[Row], metric: str, palette: Palette) -> None:
    for place, row in enumerate(rows):
        value = None if row.published is None else row.published.values.get(metric)
        if value is not None:
            mark, inside = ("x", None) if metric in row.impossible else ("o", "none")
            axes.plot(value, place, mark, color=palette.lines[1], markerfacecolor=inside)
        if metric in row.measured:
            ours = row.measured[metric].value
            axes.hlines(place, ours.low, ours.high, color=palette.lines[0])
            axes.plot(ours.mean, place, "o", color=palette.lines[0], markersize=4)
    axes.set_yticks(range(len(rows)), [row.method.label for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)


def steady_picture(name: str, part: Part, blocks: Sequence[Block]) -> Picture | None:
    """Draw how much of each list stays: a panel a dataset, a colour an accident."""
    found = {
        block.dataset: [(row, o) for row in block.rows if (o := overlaps(row))] for block in blocks
    }
    drawn = {dataset: rows for dataset, rows in found.items() if rows}
    if not drawn:
        return None

    def draw(figure: Figure, palette: Palette) -> None:
        for axes, (dataset, rows) in zip(_paired(figure, len(drawn)), drawn.items(), strict=True):
            _stays(axes, rows, palette)
            axes.set(title=dataset, xlabel="rank-biased overlap, before and after", xlim=(0, 1.02))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)

    most = max(map(len, drawn.values()))
    about = f"{part.title}: how much of each list stays after an accident, with its 95% interval."
    columns, lines = _shape(len(drawn))
    return picture(name, about, (columns, lines * (0.32 * most + 0.9) / _HEIGHT), draw)


def _stays(
    axes: Axes, rows: Sequence[tuple[Row, dict[str, tuple[float, float]]]], palette: Palette
) -> None:
    for number, accident in enumerate(rows[0][1]):
        colour = palette.lines[number % len(palette.lines)]
        known = [(at, stays[accident]) for at, (_, stays) in enumerate(rows) if accident in stays]
        places = [at + 0.16 * (number - 1.5) for at, _ in known]
        means, halves = ([each[which] for _, each in known] for which in (0, 1))
        axes.errorbar(means, places, xerr=halves, fmt="o", color=colour, ms=4, label=accident)
    axes.set_yticks(range(len(rows)), [row.method.label for row, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)


def curves_picture(name: str, part: Part, blocks: Sequence[Block]) -> Picture | None:
    """Draw log entries over the epochs: a panel a dataset, a colour a curve, a line a seed.

    Where a curve ``<name>.mean`` has ``<name>.least`` and ``<name>.most`` beside it, the first
    seed's lie around it.
    """
    pattern = re.compile(part.curves or "")
    drawn = [
        (block.dataset, runs)
        for block in blocks
        if (runs := [run for row in block.rows for run in _with_curves(row, pattern)])
    ]
    if not drawn:
        return None

    def draw(figure: Figure, palette: Palette) -> None:
        for axes, (dataset, runs) in zip(_paired(figure, len(drawn)), drawn, strict=True):
            names = [key for key in runs[0].log if pattern.fullmatch(key)]
            for colour, key in zip(palette.lines * len(names), names, strict=False):
                for number, run in enumerate(runs):
                    _curve(axes, run, key, pattern, colour, number == 0)
            axes.set(title=dataset, xlabel="epoch", ylabel=part.axis)
            axes.legend()

    about = f"{part.title}. {part.about} The first seed in full, with least and most; others thin."
    return picture(name, about, _shape(len(drawn)), draw)


def _with_curves(row: Row, pattern: re.Pattern[str]) -> list[Result]:
    return [run for run in row.runs.values() if any(pattern.fullmatch(key) for key in run.log)]


def _curve(
    axes: Axes, run: Result, key: str, pattern: re.Pattern[str], colour: str, first: bool
) -> None:
    log = run.log
    match = pattern.fullmatch(key)
    if match is None or key not in log:
        return
    epochs = log.get("epoch") or list(range(1, len(log[key]) + 1))
    label = f"block {match[1]}" if match.groups() and first else None
    axes.plot(epochs, _numbers(log[key]), color=colour, label=label, linewidth=2 if first else 0.7)
    stem = key.removesuffix(".mean")
    if first and f"{stem}.least" in log and f"{stem}.most" in log:
        low, high = (_numbers(log[f"{stem}.{which}"]) for which in ("least", "most"))
        axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)


def _numbers(column: Sequence[Any]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in column]
