"""One file a system; importing this room registers them all."""

from nextup.models import gru4rec, markov, popularity, sasrec  # noqa: F401
