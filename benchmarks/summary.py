"""Render what is recorded in ``results/`` as one page, ``results/README.md``; nothing is typed in.

python benchmarks/summary.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from nextup.studies.document import markdown
from nextup.studies.records import older_records
from record import RESULTS


def load(name: str) -> dict[str, Any] | None:
    """Return a recorded result, or None where it was not measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def origin(found: dict[str, Any]) -> str:
    """Return one line about where the figures come from."""
    machine = found["hardware"]
    said = [
        f"`{found['command']}`",
        f"commit `{found['commit'][:9]}`",
        found.get("date", "")[:10],
        machine.get("processor") or machine.get("cpu"),
        f"{machine['cores']} cores",
        f"{found['threads']} threads" if "threads" in found else "",
        f"load {found['load_average']}" if "load_average" in found else "",
    ]
    return ", ".join(part for part in said if part)


def training() -> Iterator[str]:
    """Seconds an epoch."""
    found = load("train_speed")
    if found is None:
        return
    yield "## Training: seconds an epoch, SASRec on Beauty\n"
    yield "| loss | who | s/epoch | times nextup |"
    yield "|---|---|---|---|"
    for loss in ("bce", "softmax", "views"):
        if loss not in found:
            continue
        one = found[loss]
        for name, seconds in one["seconds_per_epoch"].items():
            yield f"| {loss} | {name} | {seconds:.2f} | {one['ratio_to_nextup'][name]:.1f} |"
        if "floor_seconds" not in one:
            continue
        floor, times = one["floor_seconds"], 1 / one["nextup_over_floor"]
        yield f"| {loss} | floor (fp32 arithmetic on real items) | {floor:.2f} | {times:.2f} |"
    yield ""
    if "views" in found:
        yield (
            "coserec: the authors' public code; bce on next items alone, views as published, "
            "beside our CoSeRec.\n"
        )
    for loss in ("bce", "softmax"):
        if loss in found:
            one = found[loss]
            top = ", ".join(f"{e['operator']} {e['share']:.0%}" for e in one["profile"][:6])
            yield (
                f"{loss}: the losses of {one['targets_compared']:,} targets differ from the plain "
                f"implementation's by at most {one['largest_difference_per_target']:.1e}; "
                f"profile of a step: {top}.\n"
            )
    yield origin(found) + "\n"


def contrast() -> Iterator[str]:
    """The contrastive step: seconds an epoch, and memory by the size of the catalogue."""
    found = load("contrast_speed")
    if found is not None:
        yield "## The contrastive family: seconds an epoch on Beauty\n"
        yield "| who | s/epoch | plain / it | share of drawing views |"
        yield "|---|---|---|---|"
        for name, seconds in found["seconds_per_epoch"].items():
            times, share = found["plain_over"].get(name), found["share_of_views"].get(name)
            ratio = "" if times is None else f"{times:.1f}"
            part = "" if share is None else f"{share:.1%}"
            yield f"| {name} | {seconds:.2f} | {ratio} | {part} |"
        yield "\nThe plain one pads and contrasts all 50 slots; ours contrast real slots alone.\n"
        yield origin(found) + "\n"
    found = load("step_memory")
    if found is not None:
        yield "## Memory of an LMA4Rec step by the size of the catalogue\n"
        yield "| items | weights MB | before the first step MB | peak MB | ms a step |"
        yield "|---|---|---|---|---|"
        for row in found["rows"]:
            yield (
                f"| {row['items']:,} | {row['weights_mb']} | {row['before_mb']} | "
                f"{row['peak_mb']:,} | {row['milliseconds_per_step']} |"
            )
        yield f"\nBatch {found['batch']}, {found['loss']}.\n"
        yield origin(found) + "\n"


def epochs() -> Iterator[str]:
    """Seconds an epoch of every model's recipe."""
    found = [load(path.stem) for path in sorted(RESULTS.glob("epoch_seconds*.json"))]
    measured = [each for each in found if each is not None]
    if not measured:
        return
    yield "## Seconds an epoch of every model\n"
    yield (
        "Each recipe with its own batch, width, loss and targets: what a run costs, not whose code "
        "is quickest. RecBole's figures are of another machine and its own rows, as the files "
        "say.\n"
    )
    yield "| recipe | set | stage | s/epoch | steps timed | RecBole, measured elsewhere |"
    yield "|---|---|---|---|---|---|"
    for each in measured:
        for name, said in each["models"].items():
            peer = said.get("recbole_measured_elsewhere") or ""
            for stage in said.get("stages", ()):
                timed = f"{stage['steps_timed']} of {stage['steps_per_epoch']}"
                recipe = said["recipe"] or name
                shown = f"{recipe} | {each['dataset']} | {stage['name']} | {stage['seconds']:.2f}"
                yield f"| {shown} | {timed} | {peer} |"
    yield ""
    for each in measured:
        yield origin(each) + "\n"


def beside_recbole() -> Iterator[str]:
    """Ours and RecBole's models of the same shape, in turns in one run."""
    found = load("recbole_speed")
    if found is None:
        return
    yield "## Beside RecBole: seconds an epoch of models of the same shape, in one run\n"
    yield (
        f"On {found['dataset'].capitalize()}, RecBole's width, layers, filters and dropout, 50 "
        "items of a history, 256 rows a step, a softmax over the catalogue unless said; its "
        f"anomaly mode {found['recbole_anomaly_mode']}. By prefix both have the same rows and "
        "steps; by history each history is read once, with as many targets (BERT4Rec: with those "
        "that a mask hides, about a fifth). RecBole's HGN has its softmax in every row. Processor "
        "seconds.\n"
    )
    yield "| model | way | ours | RecBole | RecBole / ours | others at work |"
    yield "|---|---|---|---|---|---|"
    for name, said in found["models"].items():
        theirs = said["recbole"]
        for way in said["settings"]:
            cores = [*said[way]["rounds"]["foreign_cores"], *theirs["rounds"]["foreign_cores"]]
            busy = max((each for each in cores if each is not None), default=0.0)
            ratio = theirs["cpu"] / said[way]["cpu"]
            yield (
                f"| {name} | {way} | {said[way]['cpu']:.2f} | {theirs['cpu']:.1f} | {ratio:.1f} | "
                f"{busy:.2f} cores |"
            )
    notes = [f"{name}: {said['notes']}" for name, said in found["models"].items() if said["notes"]]
    yield "\n" + "; ".join(notes) + ".\n"
    yield origin(found) + "\n"


def teaching() -> Iterator[str]:
    """SSI's teachers and its student against plain implementations."""
    found = load("bert_speed")
    if found is not None:
        yield "## BERT4Rec and SSI's teachers: seconds an epoch on Beauty\n"
        yield "| who | ours | plain padded | plain / ours |"
        yield "|---|---|---|---|"
        seconds = found["seconds_per_epoch"]
        for name, times in found["plain_over"].items():
            yield f"| {name} | {seconds[name]:.2f} | {seconds['plain ' + name]:.2f} | {times:.1f} |"
        yield "\n" + origin(found) + "\n"
    found = load("imitation_speed")
    if found is not None:
        step, user = found["cpu_seconds_per_step"], found["cpu_seconds_a_user"]
        yield "## SSI's student on Beauty\n"
        yield (
            f"A step: {1e3 * step['ours']:.0f} ms, plain {1e3 * step['plain']:.0f} ms: "
            f"{found['plain_over_ours']:.1f} times. A user: "
            + ", ".join(f"{name} {1e6 * each:.0f} µs" for name, each in user.items())
            + f"; the student is {found['student_lighter_by']:.1f} times lighter, and "
            f"{found['student_lighter_with_scores_by']:.1f} times with the catalogue's scores, "
            "which cost both the same.\n"
        )
        yield origin(found) + "\n"


def ranking() -> Iterator[str]:
    """Ranking all test items."""
    found = load("evaluation_speed")
    if found is None:
        return
    yield "## Full ranking of all test items\n"
    yield f"{found['cases']:,} cases, {found['items']:,} items, {found['protocol']}.\n"
    yield "| way | median s | processor s |"
    yield "|---|---|---|"
    for name, times in found["times"].items():
        yield f"| {name} | {times['median_s']:.2f} | {times['cpu_s']:.2f} |"
    yield ""
    ratios = (
        f"{name} {both['wall']:.1f} ({both['cpu']:.1f})" for name, both in found["ratios"].items()
    )
    yield f"Ratios of wall time (of processor time): {'; '.join(ratios)}.\n"
    yield origin(found) + "\n"


def answering() -> Iterator[str]:
    """Top-10 for one history and for 1,000."""
    found = load("answering_speed")
    if found is None:
        return
    one = found["one_history_ms"]
    yield "## Answering: top-10, model warm, in process\n"
    yield (
        f"One history: median {one['median']:.2f} ms, 95th percentile {one['p95']:.2f} ms. "
        f"1,000 histories: {found['thousand_histories_ms']:.0f} ms. "
        f"Times the usual way needs: {found['ratios']}.\n"
    )
    yield origin(found) + "\n"


def preparing() -> Iterator[str]:
    """Rows, seconds and memory of `prepare`."""
    found = load("scale_prepare")
    if found is None:
        return
    yield "## Preparing large logs\n"
    yield "| rows | s | processor s | peak MB |"
    yield "|---|---|---|---|"
    for run in found["runs"]:
        yield "| " + " | ".join(f"{run[key]:,.{digits}f}" for key, digits in COLUMNS.items()) + " |"
    yield ""
    yield origin(found) + "\n"


COLUMNS = {"rows": 0, "seconds": 1, "cpu_seconds": 1, "peak_mb": 0}


def command_line() -> Iterator[str]:
    """From the raw file to a tested recommender."""
    found = load("time_to_quality")
    if found is None:
        return
    seconds = {part: round(value, 1) for part, value in found["seconds"].items()}
    yield "## From a raw file to a tested recommender, by the command line\n"
    yield (
        f"{found['data']}, recipe sasrec/{found['recipe']}, {found['epochs']} epochs: "
        f"{seconds['all']} s in all (prepare {seconds['prepare']}, fit {seconds['fit']}, "
        f"evaluate {seconds['evaluate']}); test HR@10 {found['test']['HR@10']:.4f}, "
        f"NDCG@10 {found['test']['NDCG@10']:.4f} (full ranking, seen items excluded).\n"
    )
    yield origin(found) + "\n"


def quality() -> Iterator[str]:
    """Where the tested figures are: the studies' report, and the records from before it."""
    yield "## Quality\n"
    if (RESULTS / "studies.md").exists():
        yield (
            "Every tested run, with intervals, paired tests and the published figures beside it, "
            "is in [studies.md](studies.md) and the pages it names (`nextup report`; as one page, "
            "`report.html`).\n"
        )
    older = older_records(RESULTS)
    if older is not None:
        yield (
            "Older records: test part, full ranking, seen items excluded; selected on validation "
            "only. Seed, settings, commit and the checksum of the ranks are in "
            "`quality/*.json`.\n"
        )
        yield markdown([older]) + "\n"


def main() -> None:
    """Write the page."""
    lines = ["# Results\n", "Made by `python benchmarks/summary.py` from the files beside it.\n"]
    parts = (
        quality,
        command_line,
        training,
        contrast,
        teaching,
        epochs,
        beside_recbole,
        ranking,
        answering,
        preparing,
    )
    for part in parts:
        lines += list(part())
    (RESULTS / "README.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
