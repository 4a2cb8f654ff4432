"""``python -m nextup`` is the same as ``nextup``."""

from nextup.cli import main

if __name__ == "__main__":
    main()
