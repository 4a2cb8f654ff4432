"""What the parts of SSI's study share: datasets, metrics, and words about their tables."""

from typing import Any

from nextup.studies.plans._protocols import SAMPLED
from nextup.studies.plans._ssi_rows import TASKS
from nextup.studies.study import Method, Part

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
    "guessing), or its loss in finding what was cut out of one. A run that took its teachers over "
    "from an older one does not say it."
)
STEADY = "Full ranking. All models meet the same accidents, drawn once."
