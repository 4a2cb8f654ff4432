"""`nextup fit`, `evaluate` and `compare`: runs are made, measured and laid side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from nextup.cli.console import (
    command,
    next_command,
    note,
    parse_settings,
    show,
    split_list,
    stoppable,
    table,
)
from nextup.errors import ConfigError

if TYPE_CHECKING:
    from nextup.evaluation.protocol import Protocol
    from nextup.train.fit import LearnFrom

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Split = Annotated[str, typer.Option(help="leave-one-out, last-N or time:VALID,TEST.")]
Candidates = Annotated[
    str | None,
    typer.Option(
        help="full (every item), sampled, or popular (sampled by popularity).", show_default="full"
    ),
]
Negatives = Annotated[
    int | None, typer.Option(help="How many candidates are sampled.", show_default="99")
]
NegativesSeed = Annotated[int | None, typer.Option(help="Which are sampled.", show_default="0")]
Seen = Annotated[
    str | None, typer.Option(help="Seen items are excluded or included.", show_default="excluded")
]
Ties = Annotated[str | None, typer.Option(help="mean, low_id or pessimistic.", show_default="mean")]
Cutoffs = Annotated[str | None, typer.Option(help="The k of the metrics.", show_default="5,10,20")]


@command(
    "nextup fit data/ml",
    "nextup fit data/ml --model gru4rec --set width=128 --set epochs=30",
    "nextup fit data/ml --recipe sasrec/tuned --run runs/tuned --seed 1",
    "nextup fit data/ml --resume                            (after it was stopped or killed)",
    "torchrun --nproc-per-node 2 -m nextup fit data/ml      (several processes)",
    "nextup fit data/ml --recipe ssi/small --kept runs/teachers",
    "nextup fit data/ml --recipe ssi/small-gru4rec --kept runs/teachers  (another student)",
    "nextup fit data/ml --recipe ssi/small --set 'teachers=[lma4rec, bert4rec]'",
    "nextup models sasrec                                   (what can be set)",
)
def fit(
    dataset: Annotated[Path, typer.Argument(help="A folder made by `nextup prepare`.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="See `nextup models`.", show_default="sasrec"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            "-r",
            help="The folder to make.",
            show_default="runs/DATASET-MODEL[-RECIPE]-seedSEED",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Settings that come with nextup, or a file of yours (.toml)."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="One setting; may be repeated."),
    ] = None,
    split: Split = "leave-one-out",
    candidates: Candidates = None,
    negatives: Negatives = None,
    negatives_seed: NegativesSeed = None,
    seen: Seen = None,
    ties: Ties = None,
    cutoffs: Cutoffs = None,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, 32 or bf16.")] = "auto",
    learn_from: Annotated[
        str,
        typer.Option(
            help="train, train+valid or all; only with train is there anything to validate on, "
            "the others run all epochs."
        ),
    ] = "train",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an old run.")] = False,
    kept: Annotated[
        Path | None,
        typer.Option(
            help="A folder of trained stages to take over and add to, such as the teachers of "
            "another run.",
            show_default="RUN/stages, if there are several",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Fit a model to a dataset.

    The best of the epochs is kept, judged on the validation items alone. The run folder holds the
    model, its settings, the log and the checkpoint. The test items are never looked at; `nextup
    evaluate` does that.
    """
    _check_that_it_is_no_model(dataset)
    values = parse_settings(settings)
    protocol = make_protocol(candidates, negatives, negatives_seed, seen, ties, cutoffs)
    from nextup.train.fit import fit as fit_model
    from nextup.train.recipe import check_of_use, is_file, model_of, recipes

    name = model or model_of(recipe)
    if name is None and recipe is not None and is_file(recipe):
        raise ConfigError(f"recipe {recipe}: say which model it is for with --model")
    name = name or "sasrec"
    check_of_use(name, values)
    with stoppable(resumable=True):
        made = fit_model(
            dataset,
            name,
            run=run,
            recipe=recipe,
            settings=values,
            split=split,
            protocol=protocol,
            seed=seed,
            device=device,
            precision=precision,
            learn_from=cast("LearnFrom", learn_from),
            resume=resume,
            overwrite=overwrite,
            progress=not quiet,
            kept=kept,
        )
    if found := made.metrics.get("valid"):
        show(metrics_table(found), f"{made.path}: validation")
        note(f"protocol: {made.ranks('valid').protocol.describe()}")
    if recipe is None and (known := list(recipes(name))):
        note(f"settings were the defaults of {name}, or as given; recipes: {', '.join(known)}")
    if learn_from != "train" and made.log():
        note("nothing was held out to stop early on; --set epochs=N says how long it learns")
    if learn_from == "all":  # nothing is held out that could measure it
        next_command("recommend", made.path, "ITEM", "ITEM")
    else:
        next_command("evaluate", made.path)


@command(
    "nextup evaluate runs/ml-sasrec",
    "nextup evaluate runs/ml-sasrec data/ml --seen included --cutoffs 10,50",
    "nextup evaluate runs/ml-sasrec --candidates sampled --negatives 99",
)
def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder made by `nextup fit`.")],
    dataset: Annotated[
        Path | None,
        typer.Argument(help="The dataset it was fitted on.", show_default="where it was then"),
    ] = None,
    part: Annotated[str, typer.Option(help="test or valid.")] = "test",
    candidates: Candidates = None,
    negatives: Negatives = None,
    negatives_seed: NegativesSeed = None,
    seen: Seen = None,
    ties: Ties = None,
    cutoffs: Cutoffs = None,
    device: Device = "auto",
) -> None:
    """Measure a run on the items it never saw.

    The rank of each is kept in the run, for `nextup compare`. A protocol not named here is the one
    the run was fitted with.
    """
    from nextup.train.run import Run

    made = Run(run)
    protocol = make_protocol(
        candidates, negatives, negatives_seed, seen, ties, cutoffs, base=made.protocol
    )
    before = made.protocols.get(part)
    from nextup.train.assess import evaluate as assess

    with stoppable():
        found = assess(made, dataset, part=part, protocol=protocol, device=device)
    ranks = made.ranks(part)
    show(metrics_table(found), f"{run}: {part}, {len(ranks):,} cases")
    note(f"protocol: {ranks.protocol.describe()}")
    if before is not None and not before.ranks_like(ranks.protocol):
        note(f"this replaces what was measured by another protocol: {before.describe()}")
    next_command("recommend", run, "ITEM", "ITEM")


@command(
    "nextup compare runs/ml-pop runs/ml-mc1 runs/ml-sasrec",
    "nextup compare runs/* --baseline ml-sasrec --metrics HR@10,NDCG@10",
)
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Runs that were evaluated alike.")],
    part: Annotated[str, typer.Option(help="test or valid.")] = "test",
    baseline: Annotated[
        str | None, typer.Option(help="Test all against this one.", show_default="the first")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Such as HR@10,NDCG@10.", show_default="HR and NDCG")
    ] = None,
) -> None:
    """Lay runs side by side, with intervals and paired tests."""
    from nextup.evaluation.compare import compare as compare_ranks
    from nextup.train.run import Run

    names = [path.resolve().name for path in runs]
    if len(set(names)) < len(names):
        names = [str(path) for path in runs]
    if len(set(names)) < len(names):
        raise ConfigError("compare: a run is named twice; name each once")
    ranks = {name: Run(path).ranks(part) for name, path in zip(names, runs, strict=True)}
    found = compare_ranks(ranks, baseline=baseline, metrics=split_list(metrics))
    header, *rows = found.table()
    show(table(header, rows))
    note(found.describe())


def _check_that_it_is_no_model(dataset: Path) -> None:
    """Say how a model is named where it stands in the place of the dataset."""
    from nextup.models.registry import available_models

    if str(dataset) in available_models() and not dataset.exists():
        raise ConfigError(
            f"`{dataset}` is a model; the dataset comes first, as in `nextup fit data/ml --model "
            f"{dataset}`"
        )


def make_protocol(
    candidates: str | None,
    negatives: int | None,
    negatives_seed: int | None,
    seen: str | None,
    ties: str | None,
    cutoffs: str | None,
    base: Protocol | None = None,
) -> Protocol | None:
    """Return the protocol that the options name, None if they name nothing.

    Parameters
    ----------
    candidates, negatives, negatives_seed, seen, ties, cutoffs
        What was typed; None where nothing was.
    base
        The protocol that holds where nothing was typed; by default the usual one.

    Raises
    ------
    ConfigError
        If a value is out of range, or negatives are asked for where none are drawn.
    """
    given: dict[str, Any] = {
        "candidates": candidates,
        "n_negatives": negatives,
        "seed": negatives_seed,
        "seen": seen,
        "ties": ties,
        "cutoffs": cutoffs and cutoffs.replace(",", " ").split(),
    }
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        return None
    from nextup.evaluation.protocol import Protocol
    from nextup.settings import make_config

    made = make_config(Protocol, {**(base.model_dump() if base else {}), **given}, "protocol")
    if made.candidates == "full" and (negatives is not None or negatives_seed is not None):
        option = "--negatives" if negatives is not None else "--negatives-seed"
        raise ConfigError(
            f"protocol: {option} speaks of sampled candidates, but every item is one; "
            "pass --candidates sampled (or popular) too"
        )
    return made


def metrics_table(found: dict[str, float]) -> Any:
    """Return metrics as a table: a row a metric, a column a cutoff, and one without cutoff."""
    named = {name: name.partition("@") for name in found}
    kinds = list(dict.fromkeys(kind for kind, _, _ in named.values()))
    cutoffs = sorted({cutoff for _, _, cutoff in named.values() if cutoff}, key=int)
    rows = [[kind, *(found.get(f"{kind}@{k}") for k in cutoffs), found.get(kind)] for kind in kinds]
    return table(("", *(f"@{k}" for k in cutoffs), "all"), rows)
