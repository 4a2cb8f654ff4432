"""The rows of SSI's tables: systems compared, teachers alone, SSI and what is left of it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from nextup.studies.study import Method, Role

Rows = tuple[Method, ...]

TASKS = ("temporal", "persona", "global")

# The settings that make ablations out of a model; named here and nowhere else.
SECOND_STUDENT = {"model": "hgn", "start": 1}  # not the very run that stands alone
PLAIN_THREE = ["bert4rec", *({"model": "bert4rec", "start": start} for start in (1, 2))]
SECOND_BEST = {"model": "sasrec", "recipe": "tuned", "start": 1}
OTHER_BEST = {
    "student": "lma4rec/tuned",
    "teachers": ["sasrec/tuned"],
    "teacher_weight": 0.25,
    "validate_every": 2,  # as it is alone
}
LIGHT = {"student": "hgn/small", "imitate_items": True}
NO_ITEMS, NO_PREDICTIONS = {"imitate_items": False}, {"imitate_predictions": False}


def named(label: str, size: str) -> str:
    """Return a label that says which size it is, unless it is the paper's."""
    return label if size == "paper" else f"{label} {size}"


def part_of(size: str) -> str:
    """Return the recipe of teachers and students of a size, where they stand alone."""
    return "ssi" if size == "paper" else size


def ssi(label: str, size: str, *, control: bool = False, **settings: Any) -> Method:
    """Return SSI, or what is left of it."""
    role: Role = "control" if control else "own"
    added = control or size != "paper"
    return Method(named(label, size), "ssi", size, settings, role, added)


def ssi_gru4rec(label: str, size: str, *, control: bool = False, **settings: Any) -> Method:
    """Return SSI with GRU4Rec as student, trained as GRU4Rec alone is."""
    if size == "small":
        return replace(ssi(label, size, control=control, **settings), recipe="small-gru4rec")
    return ssi(label, size, control=control, student="gru4rec", **settings)


def others(size: str) -> Rows:
    """Return the systems that SSI is compared with."""
    own = size == "paper"
    return (
        Method("POP", "pop", learn_from="train+valid", published="MostPop"),
        Method("MC1", "mc1", added=True),
        Method("BPR", "bpr", added=True),
        Method("FPMC", "fpmc", added=True),
        Method("Fossil", "fossil", added=True),
        Method("GRU4Rec", "gru4rec"),
        Method("GRU4Rec official", "gru4rec_official", added=True),
        Method("Caser", "caser", added=True),
        Method("NextItNet", "nextitnet", added=True),
        Method("GREC", "grec"),
        Method("SR-GNN", "srgnn", added=True),
        Method("GC-SAN", "gcsan", added=True),
        Method("SHAN", "shan", added=True),
        Method("SASRec", "sasrec", added=True),
        Method(named("BERT4Rec", size), "bert4rec", size, added=not own),
        Method("S3-Rec", "s3rec"),
        Method("HGN", "hgn"),
        # The paper's are as wide as its students, beside which their figures belong as well.
        alone("GRU4Rec as student", size, "gru4rec", published="GRU4Rec" if own else None),
        alone("HGN as student", size, published="HGN" if own else None),
    )


def alone(label: str, size: str, model: str = "hgn", **more: Any) -> Method:
    """Return a student that nobody teaches, with the settings it has as a student."""
    return Method(named(label, size), model, part_of(size), **{"added": True, **more})


def students(size: str) -> Rows:
    """Return the systems that the paper proposes."""
    other = replace(ssi_gru4rec("SSI GRU4Rec", size), published="SSI_GRU4Rec")
    return other, ssi("SSI", size)


def untaught(size: str) -> Rows:
    """Return what may teach and be taught, alone."""
    return (
        Method(named("BERT4Rec", size), "bert4rec", size, added=size != "paper"),
        alone("HGN as student", size),
        alone("GRU4Rec as student", size, "gru4rec"),
    )


def patient() -> Rows:
    """Return `small` systems that may learn for long, for a set with few steps in an epoch."""
    teachers, students = {"epochs": 300, "patience": 20}, {"epochs": 100, "patience": 10}
    taught: dict[str, Any] = {"teacher_training": teachers, **students}
    return (
        Method("BERT4Rec patient small", "bert4rec", "small", teachers, added=True),
        alone("HGN as student patient", "small", settings=students),
        alone("GRU4Rec as student patient", "small", "gru4rec", settings=students),
        ssi_gru4rec("SSI GRU4Rec patient", "small", **taught),
        ssi("SSI patient", "small", **taught),
    )


def pieces(size: str) -> Rows:
    """Return what Table 3 takes apart."""
    return (
        ssi("SSI", size),
        ssi("w/o item representation imitation", size, **NO_ITEMS),
        ssi("w/o prediction distribution imitation", size, **NO_PREDICTIONS),
        alone("w/o both", size, role="own", added=size != "paper"),
    )


def ways_of_item_vectors(size: str) -> Rows:
    """Return SSI with item vectors imitated in other ways than the paper's."""
    return (
        ssi("item distance summed", size, control=True, item_reduction="sum"),
        ssi("item vectors mapped", size, control=True, map_items=True),
    )


def one_teacher(size: str, student: str = "", taught: Callable[..., Method] = ssi) -> Rows:
    """Return SSI with one of its teachers at a time."""
    return tuple(taught(f"SSI {student}{task}", size, teachers=task) for task in TASKS)


def teachers_alone(size: str) -> Rows:
    """Return the teachers as if they were asked themselves, and one without a task."""
    shared: dict[str, Any] = {"role": "control", "added": True}
    tasks = [
        Method(
            named(f"teacher {task}", size), "consistency", part_of(size), {"task": task}, **shared
        )
        for task in TASKS
    ]
    plain = Method(named("teacher without task", size), "bert4rec", part_of(size), **shared)
    return (*tasks, plain)


def number_or_task(size: str, student: str = "", taught: Callable[..., Method] = ssi) -> Rows:
    """Return what tells whether three teachers help by their tasks or by being three."""
    tasked, plain = f"SSI {student}predictions alone", f"{student}predictions of three without task"
    return (
        taught(tasked, size, control=True, **NO_ITEMS),
        taught(plain, size, control=True, teachers=PLAIN_THREE, **NO_ITEMS),
    )


def imitation(size: str) -> Rows:
    """Return what tells what imitation adds."""
    return (
        alone("student alone", size),
        *teachers_alone(size),
        *one_teacher(size),
        ssi("SSI", size),
        ssi("taught without task", size, control=True, teachers="bert4rec"),
        ssi("taught by a second student", size, control=True, teachers=[SECOND_STUDENT]),
        *number_or_task(size),
    )


def imitation_by_gru4rec(size: str) -> Rows:
    """Return what tells what imitation adds to a student that is no lighter than it must be."""
    return (
        alone("GRU4Rec as student", size, "gru4rec"),
        *one_teacher(size, "GRU4Rec ", ssi_gru4rec),
        ssi_gru4rec("SSI GRU4Rec", size),
        ssi_gru4rec("GRU4Rec taught without task", size, control=True, teachers="bert4rec"),
        *number_or_task(size, "GRU4Rec ", ssi_gru4rec),
    )


def beyond() -> Rows:
    """Return the best single models, and what strong models teach."""
    single: dict[str, Any] = {"role": "baseline", "added": True}
    own: dict[str, Any] = {"role": "own", "added": True}
    return (
        Method("S3-Rec attributes tuned", "s3rec", "tuned-attributes", **single),
        Method("LMA4Rec tuned", "lma4rec", "tuned", **single),
        *strong_student(),
        Method("LMA4Rec taught by SASRec", "ssi", "tuned", OTHER_BEST, **own),
        Method("HGN taught by both", "ssi", "tuned", LIGHT, **own),
    )


def strong_student() -> Rows:
    """Return the tuned SASRec alone, and taught by others as strong."""
    own: dict[str, Any] = {"role": "own", "added": True}
    gently: dict[str, Any] = {"teacher_weight": 0.25}
    return (
        Method("SASRec tuned", "sasrec", "tuned", role="baseline", added=True),
        Method("SASRec taught by both", "ssi", "tuned", **own),
        Method("SASRec taught by both with weight .25", "ssi", "tuned", gently, **own),
        Method("SASRec taught by SASRec", "ssi", "tuned", {"teachers": [SECOND_BEST]}, **own),
    )


def depths(size: str, layers: tuple[int, ...]) -> Iterator[Method]:
    """Yield SSI and BERT4Rec with so many self-attention blocks."""
    for depth in layers:
        taught = [{"model": "consistency", "settings": {"task": t, "layers": depth}} for t in TASKS]
        own = ssi(f"SSI {depth}", size, teachers=taught)
        yield replace(own, at=depth, series="SSI")
        yield Method(
            named(f"BERT4Rec {depth}", size),
            "bert4rec",
            part_of(size),
            {"layers": depth},
            at=depth,
            series="BERT4Rec",
        )


def steady(size: str) -> Rows:
    """Return the systems whose consistency is measured."""
    chosen = ("POP", "MC1", "GRU4Rec", "SASRec", named("BERT4Rec", size), "S3-Rec", "HGN")
    return (
        *(method for method in others(size) if method.label in chosen),
        Method("LMA4Rec", "lma4rec", added=True),
        *teachers_alone(size),
        alone("HGN as student", size),
        alone("GRU4Rec as student", size, "gru4rec"),
        *students(size),
        *number_or_task(size),
    )


def every_kind() -> Rows:
    """Return a system of every kind, for a set that is small enough for all of them."""
    contrastive = (
        Method("CL4SRec", "cl4srec", added=True),
        Method("CoSeRec", "coserec", "paper-beauty", added=True),
        Method("SRMA", "srma", added=True),
        Method("LMA4Rec", "lma4rec", "paper-beauty", added=True),
    )
    return (*others("small"), *contrastive, *teachers_alone("small"), *students("small"))


def by_popularity(size: str) -> Rows:
    """Return the systems that are also held against negatives drawn by popularity."""
    shown = ("POP", "MC1", named("BERT4Rec", size))
    return (
        *(method for method in others(size) if method.label in shown),
        alone("HGN as student", size),
        ssi("SSI", size),
    )
