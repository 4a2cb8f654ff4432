"""One file a system; importing this room registers them all."""

from nextup.models import popularity  # noqa: F401
