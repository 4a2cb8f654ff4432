"""Models against the figures that others report for the same data, split and ranking."""

from nextup.studies.plans._protocols import SAMPLED
from nextup.studies.study import Method, Part, Study, register

SAMPLED_METRICS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10")

LEVELS = (
    Method("POP", "pop", learn_from="train+valid"),
    Method("MC1", "mc1", added=True),
    *(
        Method(label, model, added=True)
        for label, model in (("BPR", "bpr"), ("FPMC", "fpmc"), ("Fossil", "fossil"))
    ),
    Method("GRU4Rec", "gru4rec"),
    Method("GRU4Rec official", "gru4rec_official", published="GRU4Rec", added=True),
    Method("Caser", "caser"),
    *(
        Method(label, model, added=True)
        for label, model in (
            ("NextItNet", "nextitnet"),
            ("GRec", "grec"),
            ("SR-GNN", "srgnn"),
            ("GC-SAN", "gcsan"),
            ("SHAN", "shan"),
        )
    ),
    Method("HGN", "hgn"),
    Method("BERT4Rec", "bert4rec"),
    Method("SASRec", "sasrec"),
    Method("S3-Rec", "s3rec", added=True),
    Method("S3-Rec attributes", "s3rec", recipe="attributes"),
    *(
        Method(label, model, recipe=recipe, published=published, role="tuned", added=True)
        for label, model, recipe, published in (
            ("BPR fast", "bpr", "fast", None),
            ("Fossil tuned", "fossil", "tuned", None),
            ("GRU4Rec tuned", "gru4rec", "tuned", "GRU4Rec"),
            ("GRU4Rec small", "gru4rec", "small", "GRU4Rec"),
            ("GRU4Rec official tuned", "gru4rec_official", "tuned", "GRU4Rec"),
            ("Caser tuned", "caser", "tuned", "Caser"),
            ("SHAN tuned", "shan", "tuned", None),
            ("HGN small", "hgn", "small", "HGN"),
            ("BERT4Rec small", "bert4rec", "small", "BERT4Rec"),
            ("SASRec tuned", "sasrec", "tuned", "SASRec"),
            ("S3-Rec tuned", "s3rec", "tuned", None),
            ("S3-Rec attributes tuned", "s3rec", "tuned-attributes", "S3-Rec attributes"),
            ("LMA4Rec tuned", "lma4rec", "tuned", None),
        )
    ),
    *(
        Method(
            f"S3-Rec attributes {name}",
            "s3rec",
            recipe=recipe,
            settings=settings,
            published="S3-Rec attributes",
            role="tuned",
            added=True,
            protocol=SAMPLED,
        )
        for name, recipe, settings in (
            ("40 epochs among 99", "attributes", {"pretrain_epochs": 40}),
            ("tuned among 99", "tuned-attributes-sampled", {}),
        )
    ),
    *(
        Method(
            f"S3-Rec attributes {epochs} epochs",
            "s3rec",
            recipe="attributes",
            settings={"pretrain_epochs": epochs},
            published="S3-Rec attributes",
            role="tuned",
            added=True,
        )
        for epochs in (20, 40)
    ),
)
REPORTED = (
    "Held against what the authors of S3-Rec report of the same sets and split. Their S3-Rec knows "
    "the items' attributes; ours is shown with and without. Rows called tuned, small or fast are "
    "our own settings and stand beside the published figure of the same model, where there is one; "
    "systems that they do not report are added. The authors' S3-Rec "
    "pre-trains for 150 epochs on Beauty and Toys (100 on Sports and Yelp), then learns for up to "
    "200; the rows with 20 and 40 epochs pre-train for no longer, then learn as our SASRec. Rows "
    "among 99 have their epoch picked by the validation items' ranks among 99, all others by those "
    "among the whole catalogue."
)

OF_ATTRIBUTES = tuple(
    method
    for method in LEVELS
    if method.label.startswith(("SASRec", "S3-Rec attributes", "S3-Rec tuned", "LMA4Rec tuned"))
)
WORTH = (
    "S3-Rec's last stage is a SASRec: of the tuned rows the tuned one, of the others SASRec as "
    "published. Differences are from the tuned one."
)

STUDY = register(
    Study(
        name="quality",
        title="Quality",
        about="Single models held against the best figures that others report for them.",
        datasets=("beauty", "toys", "sports", "yelp"),
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
                datasets=("beauty", "toys"),
                published="quality",
            ),
            Part(
                "levels",
                "Published levels, full ranking",
                LEVELS,
                published="levels",
                about=REPORTED,
            ),
            Part(
                "levels-sampled",
                "Published levels, 99 sampled negatives",
                LEVELS,
                metrics=(*SAMPLED_METRICS, "expected HR@10", "expected NDCG@10"),
                published="levels-sampled",
                protocol=SAMPLED,
                about=REPORTED,
            ),
            *(
                Part(
                    f"attributes{suffix}",
                    f"What attributes are worth{told}",
                    OF_ATTRIBUTES,
                    metrics=("HR@10", "NDCG@10"),
                    datasets=("beauty", "toys"),
                    reference="SASRec tuned",
                    protocol=protocol,
                    about=WORTH,
                )
                for suffix, told, protocol in (
                    ("", ", full ranking", None),
                    ("-sampled", ", 99 sampled negatives", SAMPLED),
                )
            ),
        ),
        seeds=(0,),
    )
)
