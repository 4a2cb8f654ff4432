"""LMA4Rec: Learnable Model Augmentation for Contrastive Sequential Recommendation, run again.

Hao et al. 2022. Table 2 compares systems, Table 3 takes LMA4Rec apart, Figures 4 and 5 vary the
weight of the contrastive loss and the width. The paper draws its figures without numbers, so ours
stand alone there.

What is added: a first-order Markov chain (what most often came next), GRU4Rec as its authors train
it (the paper cites the one with BPR-max), SRMA (another model augmentation, without a learned one),
and controls that tell what learning the dropout does: its logits left where they start, its logits
drawn at random, CoSeRec with other fixed dropouts, and SASRec with a softmax instead of one
negative.
"""

from typing import Any

from nextup.studies.study import Method, Part, Study, register, sweep

OWN = Method("LMA4Rec", "lma4rec", role="own")
COSEREC = Method("CoSeRec", "coserec")
SRMA = Method("SRMA", "srma", added=True)

# The settings that make ablations and controls out of a model; named here and nowhere else.
NO_CONTRAST = {"contrast_weight": 0.0}
NO_AUGMENTATION = {"augment": False}
FROZEN = {"estimator": "frozen"}
RANDOM = {"estimator": "frozen", "initial_spread": 1.0}
WEIGHT, WIDTH, DROPOUT = "contrast_weight", "width", "feed_forward_dropout"

TUNED: dict[str, Any] = {"recipe": "tuned", "role": "tuned", "added": True}
ALL_TUNED = (
    Method("SASRec tuned", "sasrec", **TUNED),
    Method("LMA4Rec tuned", "lma4rec", **TUNED),
)

SYSTEMS = (
    Method("POP", "pop", learn_from="train+valid"),
    Method("MC1", "mc1", added=True),
    Method("BPR", "bpr"),
    Method("GRU4Rec", "gru4rec"),
    Method("GRU4Rec official", "gru4rec_official", added=True),
    Method("GRU4Rec BPR-max", "gru4rec_official", recipe="bprmax", added=True),
    Method("Caser", "caser"),
    Method("SASRec", "sasrec"),
    Method("S3-Rec", "s3rec"),
    Method("S3-Rec MIP", "s3rec", recipe="mip", added=True),
    Method("CL4SRec", "cl4srec"),
    COSEREC,
    SRMA,
    OWN,
    *ALL_TUNED,
)

PIECES = (
    OWN,
    Method("w/o SSL", "lma4rec", settings=NO_CONTRAST, role="own"),
    Method("w/o LMA", "coserec", role="own"),
    Method("w/o DA", "lma4rec", settings=NO_AUGMENTATION, role="own"),
    Method("frozen logits", "lma4rec", settings=FROZEN, role="control", added=True),
    Method("random logits", "lma4rec", settings=RANDOM, role="control", added=True),
    *(
        Method(
            f"CoSeRec dropout {rate:g}",
            "coserec",
            settings={DROPOUT: rate},
            role="control",
            added=True,
        )
        for rate in (0.0, 0.1, 0.2, 0.3)
    ),
    Method("SRMA", "srma", role="control", added=True),
    Method("SASRec softmax", "sasrec", settings={"loss": "softmax"}, role="control", added=True),
)

STUDY = register(
    Study(
        name="lma4rec",
        title="LMA4Rec",
        about=(
            "Hao et al. 2022, run again. Beauty is not in the paper. Settings are those of each "
            "model's recipe `paper` (or `paper-<dataset>`); epochs are picked on validation."
        ),
        datasets=("toys", "sports", "yelp", "beauty"),
        parts=(
            Part(
                "table2",
                "Table 2: overall comparison",
                SYSTEMS,
                published="lma4rec-table2",
                about=(
                    "POP counts training and validation items, as the published row does; where "
                    "counts tie, that row takes lower item numbers first, ours half of the ties."
                ),
            ),
            Part(
                "table3",
                "Table 3: what each component adds",
                PIECES,
                metrics=("HR@5", "HR@10", "NDCG@5", "NDCG@10"),
                published="lma4rec-table3",
                reference="LMA4Rec",
                about=(
                    "w/o SSL: no contrastive loss. w/o LMA: a fixed dropout, which is CoSeRec "
                    "(its published row is that of CoSeRec in Table 2, figure for figure). "
                    "w/o DA: no data augmentation. If learning the dropout is worth something, "
                    "LMA4Rec beats frozen and random logits, and CoSeRec at every fixed dropout."
                ),
            ),
            Part(
                "tuned",
                "What the tuned LMA4Rec owes to what",
                (
                    *ALL_TUNED,
                    Method("SASRec tuned patience 6", "sasrec", settings={"patience": 6}, **TUNED),
                    Method("tuned frozen logits", "lma4rec", settings=FROZEN, **TUNED),
                    Method("tuned w/o SSL", "lma4rec", settings=NO_CONTRAST, **TUNED),
                    Method("tuned w/o DA", "lma4rec", settings=NO_AUGMENTATION, **TUNED),
                ),
                reference="SASRec tuned",
                about=(
                    "Recipe `tuned`: the same losses, targets and sizes for all. SASRec's waits "
                    "three epochs for a better one, LMA4Rec's six; hence one that waits six."
                ),
            ),
            Part(
                "figure4",
                "Figure 4: the weight of the contrastive loss",
                tuple(sweep("lma4rec", WEIGHT, (0, 0.1, 0.2, 0.3, 0.4, 0.5), "weight", role="own")),
                datasets=("toys", "sports"),
                axis="weight of the contrastive loss",
                published="lma4rec-table2",
                line="LMA4Rec",
            ),
            Part(
                "figure5",
                "Figure 5: the width",
                tuple(sweep("lma4rec", WIDTH, (64, 128, 192, 256, 320), "width", role="own")),
                datasets=("toys", "sports"),
                axis="width",
                published="lma4rec-table2",
                line="LMA4Rec",
            ),
            Part(
                "keep",
                "Keep probabilities while LMA4Rec trains",
                (OWN,),
                curves=r"keep\.(.+)\.mean",
                axis="keep probability",
                about="Each block's mean probability of keeping a unit; 0.5 is where they start.",
            ),
        ),
    )
)
