"""Rankings that several studies ask for beside their own."""

from nextup.evaluation.protocol import Protocol

SAMPLED = Protocol(candidates="sampled", n_negatives=99, cutoffs=(5, 10, 15, 20))
"""The target among 99 items that the user never met, drawn uniformly (SSI, section 3.1)."""
