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

from nextup.studies.plans._ssi_parts import (
    ADDED_BY_IMITATION,
    ALIGNED,
    PAPERS,
    POPULAR,
    SHORT,
    SMALL,
    STAND_INS,
    STEADY,
    STUDENT,
    TEACHERS,
    full,
    sampled,
)
from nextup.studies.plans._ssi_rows import (
    alone,
    beyond,
    by_popularity,
    depths,
    every_kind,
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
from nextup.studies.study import Study, register

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
            full(
                "consistency-all",
                "Recommendations that do not jump, every model",
                every_kind(),
                datasets=STAND_INS[:1],
                consistency=True,
                about=SMALL
                + STEADY
                + " A small set, so that all models can be asked; they have few steps in an epoch "
                "there. CoSeRec and LMA4Rec are set as for Beauty.",
            ),
        ),
    )
)
