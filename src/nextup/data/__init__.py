"""From a log of interactions to batches: read, clean, index, split, gather."""
