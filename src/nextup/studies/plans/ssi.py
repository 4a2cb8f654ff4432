"""SSI: Improving Sequential Recommendation Consistency with Self-Supervised Imitation, run again.

Yuan et al. 2021. Table 2 compares systems, Table 3 takes the imitation apart, Figure 3 teaches with
one kind of consistency at a time, Figure 4 varies the depth of the teachers. The paper draws its
figures without numbers.

The paper ranks among 99 sampled items. Every fit here is also ranked among all items, which need
not order systems alike, and beside each sampled figure stands what it would be on average over all
draws. Epochs are picked on validation by full ranking, so that runs are shared with other studies.

What is added: systems that the paper does not compare with; what imitation adds, with a teacher
that learnt no consistency, and with one that is only a second student; and consistency itself,
which the paper speaks of and does not measure. Sizes are never mixed: the paper's is eight blocks,
256 wide; ``small`` is for processors without an accelerator and stands in tables of its own.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from nextup.evaluation.protocol import Protocol
from nextup.studies.study import Method, Part, Role, Study, register

SAMPLED = Protocol(candidates="sampled", n_negatives=99, cutoffs=(5, 10, 15, 20))
CUTOFFS = (5, 10, 15, 20)
METRICS = tuple(f"{kind}@{k}" for kind in ("HR", "NDCG") for k in CUTOFFS)
EXPECTED = ("expected HR@10", "expected NDCG@10")
HEADLINE = ("HR@10", "expected NDCG@10", "NDCG@10")
PAPERS = ("beauty", "toys", "sports")
STAND_INS = ("musical-instruments", "instruments-2018", "bert4rec-beauty")
TASKS = ("temporal", "persona", "global")

# The settings that make ablations out of a model; named here and nowhere else.
SECOND_STUDENT = {"model": "hgn", "start": 1}  # not the very run that stands alone
SECOND_BEST = {"model": "sasrec", "recipe": "tuned", "start": 1}
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


def others(size: str) -> tuple[Method, ...]:
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
        alone("GRU4Rec as student", size, "gru4rec"),
        alone("HGN as student", size),
    )


def alone(label: str, size: str, model: str = "hgn", **more: Any) -> Method:
    """Return a student that nobody teaches, with the settings it has as a student."""
    return Method(named(label, size), model, part_of(size), **{"added": True, **more})


def students(size: str) -> tuple[Method, ...]:
    """Return the systems that the paper proposes."""
    other = ssi("SSI GRU4Rec", size, student="gru4rec")
    return replace(other, published="SSI_GRU4Rec"), ssi("SSI", size)


def pieces(size: str) -> tuple[Method, ...]:
    """Return what Table 3 takes apart."""
    return (
        ssi("SSI", size),
        ssi("w/o item representation imitation", size, **NO_ITEMS),
        ssi("w/o prediction distribution imitation", size, **NO_PREDICTIONS),
        alone("w/o both", size, role="own", added=size != "paper"),
    )


def one_teacher(size: str) -> tuple[Method, ...]:
    """Return SSI with one of its teachers at a time."""
    return tuple(ssi(f"SSI {task}", size, teachers=task) for task in TASKS)


def teachers_alone(size: str) -> tuple[Method, ...]:
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


def imitation(size: str) -> tuple[Method, ...]:
    """Return what tells what imitation adds."""
    return (
        alone("student alone", size),
        *teachers_alone(size),
        *one_teacher(size),
        ssi("SSI", size),
        ssi("taught without task", size, control=True, teachers="bert4rec"),
        ssi("taught by a second student", size, control=True, teachers=[SECOND_STUDENT]),
    )


def imitation_by_gru4rec(size: str) -> tuple[Method, ...]:
    """Return what tells what imitation adds to a student that is no lighter than it must be."""
    student: dict[str, Any] = {"student": "gru4rec"}
    return (
        alone("GRU4Rec as student", size, "gru4rec"),
        *(ssi(f"SSI GRU4Rec {task}", size, teachers=task, **student) for task in TASKS),
        ssi("SSI GRU4Rec", size, **student),
        ssi("GRU4Rec taught without task", size, control=True, teachers="bert4rec", **student),
    )


def beyond() -> tuple[Method, ...]:
    """Return the best single models, and the best of them taught by them."""
    tuned: dict[str, Any] = {"role": "tuned", "added": True}
    own: dict[str, Any] = {"role": "own", "added": True}
    taught: dict[str, Any] = {"teachers": [SECOND_BEST]}
    light: dict[str, Any] = {"student": "hgn/small", "imitate_items": True}
    return (
        Method("SASRec tuned", "sasrec", "tuned", **tuned),
        Method("LMA4Rec tuned", "lma4rec", "tuned", **tuned),
        Method("SASRec taught by both", "ssi", "tuned", **own),
        Method("SASRec taught by SASRec", "ssi", "tuned", taught, **own),
        Method("HGN taught by both", "ssi", "tuned", light, **own),
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


def steady(size: str) -> tuple[Method, ...]:
    """Return the systems whose consistency is measured."""
    chosen = ("POP", "MC1", "GRU4Rec", "SASRec", "S3-Rec", "HGN")
    return (
        *(method for method in others(size) if method.label in chosen),
        Method("LMA4Rec", "lma4rec", added=True),
        *teachers_alone(size),
        alone("HGN as student", size),
        alone("GRU4Rec as student", size, "gru4rec"),
        *students(size),
    )


def sampled(name: str, title: str, methods: tuple[Method, ...], **more: Any) -> Part:
    """Return a part that is measured as the paper measures."""
    usual: dict[str, Any] = {"metrics": (*METRICS, *EXPECTED), "headline": HEADLINE}
    return Part(name, title, methods, protocol=SAMPLED, **{"datasets": PAPERS, **usual, **more})


def full(name: str, title: str, methods: tuple[Method, ...], **more: Any) -> Part:
    """Return a part that is ranked among all items."""
    return Part(name, title, methods, metrics=METRICS, **{"datasets": PAPERS, **more})


SMALL = "Recipe `small`: teachers of two blocks, for processors without an accelerator. "
ADDED_BY_IMITATION = (
    "If consistency is what is taught, SSI beats the student alone, and beats being taught by the "
    "same encoder without a task; if imitation itself helps, so does being taught by a second "
    "student from another start. A teacher that is "
    "better than its student could be asked itself."
)
STEADY = "Full ranking. All models meet the same accidents, drawn once."

STUDY = register(
    Study(
        name="ssi",
        title="SSI",
        about=(
            "Yuan et al. 2021, run again. The paper's fourth set, Musical (10,057 users, 36,098 "
            "items), could not be had: Amazon's 5-core Musical Instruments of 2014 and 2018 and "
            "Beauty without a filter on items (as sparse as Musical) stand in for it, and nothing "
            "published stands beside them. Sampled tables rank among the target and 99 items that "
            "the user never met, drawn uniformly, once, the same for every method and seed; the "
            "expected figures are exact means over all draws. Epochs are picked on validation by "
            "full ranking."
        ),
        datasets=(*PAPERS, *STAND_INS),
        parts=(
            sampled(
                "table2",
                "Table 2: overall comparison",
                (*others("paper"), *students("paper")),
                published="ssi-table2",
            ),
            full("table2-full", "Table 2, full ranking", (*others("paper"), *students("paper"))),
            sampled(
                "table2-small",
                "Table 2, small",
                (*others("small"), *students("small")),
                about=SMALL,
            ),
            full(
                "table2-small-full",
                "Table 2, small, full ranking",
                (*others("small"), *students("small")),
                about=SMALL,
            ),
            sampled(
                "stand-ins",
                "Table 2 on what stands in for Musical",
                (*others("small"), *students("small")),
                datasets=STAND_INS,
                about=SMALL,
            ),
            sampled(
                "table3",
                "Table 3: what each imitation adds",
                pieces("paper"),
                datasets=("beauty",),
                reference="SSI",
                published="ssi-table3",
            ),
            sampled(
                "table3-small",
                "Table 3, small",
                pieces("small"),
                datasets=("beauty",),
                reference="SSI small",
                about=SMALL,
            ),
            *(
                sampled(
                    named("figure3", size).replace(" ", "-"),
                    f"{named('Figure 3', size)}: aspects of consistency",
                    (alone("student alone", size), *one_teacher(size), ssi("SSI", size)),
                    reference=named("student alone", size),
                    about=about,
                )
                for size, about in (("paper", ""), ("small", SMALL))
            ),
            sampled(
                "figure4",
                "Figure 4: the depth of the teachers",
                tuple(depths("paper", (1, 2, 4, 8))),
                datasets=("beauty",),
                axis="self-attention blocks",
                headline=("HR@10", "NDCG@10"),
            ),
            sampled(
                "figure4-small",
                "Figure 4, small",
                tuple(depths("small", (1, 2, 4))),
                datasets=("beauty",),
                axis="self-attention blocks",
                headline=("HR@10", "NDCG@10"),
                about=SMALL,
            ),
            sampled(
                "imitation",
                "What imitation adds",
                imitation("paper"),
                reference="student alone",
                about=ADDED_BY_IMITATION,
            ),
            sampled(
                "imitation-small",
                "What imitation adds, small",
                imitation("small"),
                reference="student alone small",
                about=SMALL + ADDED_BY_IMITATION,
            ),
            sampled(
                "imitation-gru4rec-small",
                "What imitation adds to GRU4Rec, small",
                imitation_by_gru4rec("small"),
                reference="GRU4Rec as student small",
                about=SMALL,
            ),
            full(
                "beyond",
                "The best student that can be taught",
                beyond(),
                datasets=("beauty", "toys"),
                reference="SASRec tuned",
                about=(
                    "Any model may teach: the best single model, taught by its like (the very run "
                    "that stands alone, of the same seed; which tells what imitation alone gives) "
                    "and by LMA4Rec."
                ),
            ),
            full(
                "consistency",
                "Recommendations that do not jump",
                steady("paper"),
                consistency=True,
                about=STEADY,
            ),
            full(
                "consistency-small",
                "Recommendations that do not jump, small",
                steady("small"),
                consistency=True,
                about=SMALL + STEADY,
            ),
        ),
    )
)
