"""What a study is: parts (tables, sweeps, curves), each with methods, datasets and metrics.

A study is one file in ``plans/``, a method of a table one line in it. Methods whose model or
recipe is not there yet are named in the report and otherwise passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Literal

from nextup.errors import ConfigError, suggest
from nextup.evaluation.protocol import Protocol
from nextup.studies.asked import Asked
from nextup.studies.cell import Cell, known_recipes, registered

Role = Literal["baseline", "own", "control", "tuned"]


@dataclass(frozen=True)
class Method:
    """A row of a table, or a point of a sweep.

    Parameters
    ----------
    label
        What it is called in tables and by ``--methods``.
    model, recipe, settings, learn_from
        What is fitted. The recipe ``"paper"`` stands for ``paper-<dataset>`` where the model has
        one, else ``paper``, else the model's defaults.
    role
        ``"baseline"``: the best of them on validation is what others are tested against.
        ``"own"``: the system the paper proposes. ``"control"``: what an effect is told apart by;
        runs after the others. ``"tuned"``: our own settings.
    added
        Whether the paper does not have it.
    published
        Its name in the published table, if it is not `label`.
    protocol
        How validation ranks for it, where that is not the study's way: it picks the epoch.
    at, series
        Where it stands on a sweep's axis, and on which line of its figure.
    """

    label: str
    model: str
    recipe: str | None = "paper"
    settings: Mapping[str, Any] = field(default_factory=dict)
    role: Role = "baseline"
    added: bool = False
    learn_from: str = "train"
    published: str | None = None
    protocol: Protocol | None = None
    at: float | None = None
    series: str = ""

    def absent(self) -> str | None:
        """Return why the method cannot be run here yet, or None."""
        if not registered(self.model):
            return f"the model {self.model} is not there yet"
        if self.recipe not in (None, "paper", *known_recipes(self.model)):
            return f"{self.model} has no recipe {self.recipe} yet"
        try:
            Cell("any", self.model, settings=self.settings).plain  # noqa: B018
        except ConfigError as error:
            return str(error)
        return None

    def cell(self, dataset: str, seed: int, split: str, protocol: Protocol) -> Cell:
        """Return the run on a dataset with a seed, by the method's own protocol if it has one."""
        recipe = self.recipe
        if recipe == "paper":
            known, own = known_recipes(self.model), f"paper-{Path(dataset).name}"
            recipe = own if own in known else "paper" if "paper" in known else None
        own_protocol = self.protocol or protocol
        return Cell(
            dataset, self.model, recipe, self.settings, seed, self.learn_from, split, own_protocol
        ).plain


@dataclass(frozen=True)
class Part:
    """A table or figure of a study.

    Parameters
    ----------
    name
        What ``nextup study`` calls it, such as ``table2``.
    title, about
        Its heading, and what is to be known about it.
    methods
        Its rows, in the order shown; or the points of a sweep.
    metrics, headline
        What is measured, and which of it is shown first.
    datasets
        Where; by default all of the study's.
    published
        Name of the published table, see `nextup.studies.published`.
    reference
        The label of what every row is tested against; by default the baseline that is best on
        validation, chosen for each dataset.
    axis
        What is swept, for a figure of metrics over it; with `curves`, what they show.
    line
        The row of the published table that a sweep's figure shows as a line.
    curves
        A pattern of log entries, for a figure of them over the epochs; its first group names the
        curve.
    protocol
        How its test items are ranked, by default as the study's; another is measured on the same
        fits, and its metrics may be ``expected`` ones (see `nextup.evaluation.metrics.metrics`).
    consistency
        Whether it also shows how consistent the recommendations are.
    logged
        Entries of the log that it also shows, as they stand in the last epoch.
    """

    name: str
    title: str
    methods: tuple[Method, ...]
    metrics: tuple[str, ...] = ("HR@5", "HR@10", "HR@20", "NDCG@5", "NDCG@10", "NDCG@20")
    headline: tuple[str, ...] = ("HR@10", "NDCG@10")
    datasets: tuple[str, ...] | None = None
    published: str | None = None
    reference: str | None = None
    about: str = ""
    axis: str | None = None
    line: str | None = None
    curves: str | None = None
    protocol: Protocol | None = None
    consistency: bool = False
    logged: tuple[str, ...] = ()

    @property
    def is_sweep(self) -> bool:
        """Whether its methods are points on an axis."""
        return self.axis is not None and self.curves is None


@dataclass(frozen=True)
class Study:
    """All parts of a paper, or of a question.

    Parameters
    ----------
    name
        What ``nextup study`` calls it.
    title, about
        Its heading, and what is to be known about it.
    datasets
        Public sets by name, or folders of prepared ones, the most telling first.
    parts
        Its tables and figures.
    seeds
        Those that make it complete; others are shown as well where they were run.
    split, protocol
        How every run is parted and measured; a part may show other measurements of the same runs.
    selection
        The validation metric that picks the best baseline.
    """

    name: str
    title: str
    datasets: tuple[str, ...]
    parts: tuple[Part, ...]
    about: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    split: str = "leave-one-out"
    protocol: Protocol = field(default_factory=Protocol)
    selection: str = "NDCG@10"

    def part(self, name: str) -> Part:
        """Return a part by its name.

        Raises
        ------
        ConfigError
            If there is none; names the nearest.
        """
        for part in self.parts:
            if part.name == name:
                return part
        names = [part.name for part in self.parts]
        raise ConfigError(f"study {self.name}: unknown part `{name}`{suggest(name, names)}")

    def datasets_of(self, part: Part, chosen: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return a part's datasets, or those of them that were chosen.

        Raises
        ------
        ConfigError
            If the study does not have one that was chosen.
        """
        all_of = self.datasets if part.datasets is None else part.datasets
        if chosen is None:
            return all_of
        by_name = {Path(dataset).name: dataset for dataset in self.datasets}
        for name in chosen:
            if Path(name).name not in by_name:
                raise ConfigError(
                    f"study {self.name}: unknown dataset `{name}`{suggest(name, by_name)}"
                )
        wanted = {by_name[Path(name).name] for name in chosen}
        return tuple(dataset for dataset in all_of if dataset in wanted)

    def protocol_of(self, part: Part) -> Protocol:
        """Return how the test items that a part shows are ranked."""
        return self.protocol if part.protocol is None else part.protocol

    def asked_of(self, part: Part) -> Asked:
        """Return what a part shows of its runs."""
        return Asked((self.protocol_of(part),), part.consistency)

    def asked(self) -> dict[str, Asked]:
        """Return by family of cells what any part shows of them beside their own protocol."""
        found: dict[str, Asked] = {}
        for part in self.parts:
            for dataset in self.datasets_of(part):
                for method in part.methods:
                    if method.absent() is None:
                        cell = self.cell(method, dataset, 0)
                        asked = self.asked_of(part).beside(cell.protocol)
                        if asked:
                            found[cell.family] = found.get(cell.family, Asked()) | asked
        return found

    def place_of(self, dataset: str) -> int:
        """Return where a dataset stands in the study's order."""
        return self.datasets.index(dataset) if dataset in self.datasets else len(self.datasets)

    def methods_of(self, part: Part, chosen: Sequence[str] | None = None) -> tuple[Method, ...]:
        """Return a part's methods, or those of them that were chosen by label."""
        if chosen is None:
            return part.methods
        wanted = {label.casefold() for label in chosen}
        return tuple(method for method in part.methods if method.label.casefold() in wanted)

    def cell(self, method: Method, dataset: str, seed: int) -> Cell:
        """Return the run of a method on a dataset."""
        return method.cell(dataset, seed, self.split, self.protocol)


def sweep(
    model: str, setting: str, values: Sequence[float], name: str, **shared: Any
) -> Iterator[Method]:
    """Yield a method for each value of a setting, called ``<name> <value>``."""
    for value in values:
        yield Method(f"{name} {value:g}", model, settings={setting: value}, at=value, **shared)


_REGISTER: dict[str, Study] = {}


def register(study: Study) -> Study:
    """Enter a study under its name; it then has a command and a place in the report."""
    _REGISTER[study.name] = study
    return study


def studies() -> dict[str, Study]:
    """Return all studies by name."""
    plans = import_module("nextup.studies.plans")
    for found in iter_modules(plans.__path__):
        import_module(f"{plans.__name__}.{found.name}")
    return dict(_REGISTER)


def find_study(name: str) -> Study:
    """Return a study by its name.

    Raises
    ------
    ConfigError
        If there is none; names the nearest.
    """
    known = studies()
    if name not in known:
        raise ConfigError(f"unknown study `{name}`{suggest(name, [*known, 'runs'])}")
    return known[name]
