"""What SSI is made of in the tests: two small teachers and a small student."""

from __future__ import annotations

from small_models import part

SHORT = {"epochs": 2, "batch_size": 20, "patience": 0}
TEACHERS = [
    {**part("sasrec"), "training": SHORT},
    {**part("bert4rec", width=12), "training": SHORT},
]
STUDENT = part("gru4rec", layers=1, dropout=0.3)
