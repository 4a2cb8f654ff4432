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

from typing import Any

from nextup.studies.plans._protocols import SAMPLED
from nextup.studies.plans._ssi_rows import (
    TASKS,
    alone,
    beyond,
    by_popularity,
    depths,
    imitation,
    imitation_by_gru4rec,
    named,
    number_or_task,
    one_teacher,
    others,
    patient,
    pieces,
    ssi,
    ssi_gru4rec,
    steady,
    strong_student,
    students,
    teachers_alone,
    untaught,
    ways_of_item_vectors,
)
from nextup.studies.study import Method, Part, Study, register

POPULAR = SAMPLED.model_copy(update={"candidates": "popular"})
CUTOFFS = (5, 10, 15, 20)
METRICS = tuple(f"{kind}@{k}" for kind in ("HR", "NDCG") for k in CUTOFFS)
EXPECTED = ("expected HR@10", "expected NDCG@10")
HEADLINE = ("HR@10", "expected NDCG@10", "NDCG@10")
PAPERS = ("beauty", "toys", "sports")
STAND_INS = ("musical-instruments", "instruments-2018", "bert4rec-beauty")


def sampled(name: str, title: str, methods: tuple[Method, ...], **more: Any) -> Part:
    """Return a part that is measured as the paper measures."""
    usual = {"metrics": (*METRICS, *EXPECTED), "headline": HEADLINE, "protocol": SAMPLED}
    return Part(name, title, methods, **{"datasets": PAPERS, **usual, **more})


def full(name: str, title: str, methods: tuple[Method, ...], **more: Any) -> Part:
    """Return a part that is ranked among all items."""
    return Part(name, title, methods, **{"datasets": PAPERS, "metrics": METRICS, **more})


SHORT: dict[str, Any] = {"metrics": ("HR@10", "NDCG@10"), "headline": ("HR@10", "NDCG@10")}
STUDENT = "HGN as student small"
SMALL = "Recipe `small`: teachers of two blocks, for processors without an accelerator. "
ADDED_BY_IMITATION = (
    "If consistency is what is taught, SSI beats the student alone, and beats being taught by the "
    "same encoder without a task; if imitation itself helps, so does being taught by a second "
    "student from another start. If it is their tasks and not their number, three teachers with "
    "tasks give more than three without; those start apart, so their item vectors do not align and "
    "only predictions are held against each other. A teacher that is better than its student could "
    "be asked itself."
)
TEACHERS: tuple[str, ...] = (
    "teachers.cosine",
    *(f"weight.{task}" for task in TASKS),
    *(f"teacher {task}: accuracy" for task in TASKS[:2]),
    "teacher global: global",
)
ALIGNED = (
    "teachers.cosine is how much the teachers' items agree: the mean cosine of an item's vectors "
    "in two of them. weight.* is how much each teacher counts in the end. How far a teacher has "
    "learnt its task stands last: how many sessions it tells from corrupted ones (a half by "
    "guessing), or its loss in finding what was cut out of one. Runs that took their teachers over "
    "from another do not say it."
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
                reference=STUDENT,
                about=SMALL,
            ),
            full(
                "table2-small-full",
                "Table 2, small, full ranking",
                (*others("small"), *students("small")),
                reference=STUDENT,
                about=SMALL,
            ),
            sampled(
                "stand-ins",
                "Table 2 on what stands in for Musical",
                (*others("small"), *students("small")),
                datasets=STAND_INS,
                reference=STUDENT,
                about=SMALL + ALIGNED,
                logged=TEACHERS,
            ),
            sampled(
                "patient",
                "Teachers and students that may learn for long, on a small set",
                (*untaught("small"), *students("small"), *patient()),
                datasets=STAND_INS[:1],
                reference="HGN as student patient small",
                **SHORT,
                about=SMALL
                + (
                    "This set has six steps in an epoch; patient teachers have 300 epochs and "
                    "wait for 100, patient students have 100 and wait for 10."
                ),
                logged=TEACHERS,
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
                (*pieces("small"), *ways_of_item_vectors("small")),
                datasets=("beauty", "toys"),
                reference="SSI small",
                about=SMALL
                + (
                    "The distance of two item vectors is a mean over their width, which is small "
                    "beside the divergence of predictions; summed it weighs 64 times as much. "
                    "Mapped, the student's vectors need not lie in the teachers' spaces."
                ),
                logged=("divergence", "item_distance"),
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
                about=ADDED_BY_IMITATION + " " + ALIGNED,
                logged=TEACHERS,
            ),
            sampled(
                "imitation-small",
                "What imitation adds, small",
                imitation("small"),
                reference="student alone small",
                about=SMALL + ADDED_BY_IMITATION + " " + ALIGNED,
                logged=TEACHERS,
            ),
            sampled(
                "imitation-gru4rec-small",
                "What imitation adds to GRU4Rec, small",
                imitation_by_gru4rec("small"),
                reference="GRU4Rec as student small",
                about=SMALL,
                logged=TEACHERS,
            ),
            full(
                "imitation-small-full",
                "What imitation adds, small, full ranking",
                imitation("small"),
                reference="student alone small",
                about=SMALL,
                **SHORT,
            ),
            full(
                "imitation-gru4rec-small-full",
                "What imitation adds to GRU4Rec, small, full ranking",
                imitation_by_gru4rec("small"),
                reference="GRU4Rec as student small",
                about=SMALL,
                **SHORT,
            ),
            *(
                measured(
                    f"{name}-small{suffix}",
                    f"{title}, small{told}",
                    methods,
                    reference=reference,
                    datasets=("beauty", "toys"),
                    about=SMALL + about,
                    **SHORT,
                )
                for name, title, methods, reference, about in (
                    (
                        "teachers",
                        "What the tasks make of a teacher, and students beside the best one",
                        (*teachers_alone("small"), *students("small")),
                        "teacher temporal small",
                        "",
                    ),
                    (
                        "one",
                        "One teacher beside three",
                        (*one_teacher("small"), ssi("SSI", "small")),
                        "SSI small",
                        "",
                    ),
                    (
                        "one-gru4rec",
                        "One teacher beside three, GRU4Rec",
                        (
                            *one_teacher("small", "GRU4Rec ", ssi_gru4rec),
                            ssi_gru4rec("SSI GRU4Rec", "small"),
                        ),
                        "SSI GRU4Rec small",
                        "",
                    ),
                    (
                        "number",
                        "Three teachers with and without tasks",
                        number_or_task("small"),
                        "SSI predictions alone small",
                        "Predictions alone; those without a task start apart.",
                    ),
                    (
                        "number-gru4rec",
                        "Three teachers with and without tasks, GRU4Rec",
                        number_or_task("small", "GRU4Rec ", ssi_gru4rec),
                        "SSI GRU4Rec predictions alone small",
                        "Predictions alone; those without a task start apart.",
                    ),
                )
                for measured, suffix, told in ((sampled, "", ""), (full, "-full", ", full ranking"))
            ),
            sampled(
                "popular-small",
                "Negatives drawn by popularity, small",
                by_popularity("small"),
                reference="BERT4Rec small",
                protocol=POPULAR,
                **SHORT,
                about=SMALL + "As BERT4Rec's paper draws them, which this paper does not say.",
            ),
            full(
                "beyond",
                "What strong models teach, beside the best single model",
                beyond(),
                datasets=("beauty", "toys"),
                **SHORT,
                about=(
                    "Any model may teach and any that learns by gradient be taught. All are held "
                    "against the single model that is best on validation. S3-Rec knows the items' "
                    "attributes, none of the students does."
                ),
            ),
            full(
                "beyond-student",
                "What strong models teach, beside the student alone",
                strong_student(),
                datasets=("beauty", "toys"),
                reference="SASRec tuned",
                **SHORT,
                about=(
                    "The tuned SASRec is the student that stands alone, of the same seed; taught "
                    "by another of its kind it tells what imitation alone gives."
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
