"""Models against the figures that others report for the same data, split and ranking."""

from nextup.studies.study import Method, Part, Study, register

STUDY = register(
    Study(
        name="quality",
        title="Quality",
        about="Single models held against the best figures that others report for them.",
        datasets=("beauty", "toys"),
        parts=(
            Part(
                "goals",
                "Goals",
                (
                    Method("SASRec", "sasrec"),
                    Method("SASRec public", "sasrec", recipe="public", published="SASRec"),
                    Method("SASRec tuned", "sasrec", recipe="tuned"),
                    Method("GRU4Rec tuned", "gru4rec", recipe="tuned"),
                ),
                metrics=("HR@10", "NDCG@10"),
                published="quality",
            ),
        ),
        seeds=(0,),
    )
)
