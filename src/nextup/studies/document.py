"""A report as a list of blocks, and how they read as Markdown; `page` makes HTML of them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nextup.errors import ConfigError


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title. In Markdown, `page` names a file for what stands below."""

    text: str
    level: int
    page: str = ""


@dataclass(frozen=True)
class Paragraph:
    """Running text; `` `code` `` and ``**bold**`` may stand in it."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of short texts."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """A table: a header and rows of text; all columns but the first are set to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1


@dataclass(frozen=True)
class Picture:
    """A figure: its file's name, what it shows in words, and its bytes on light and on dark."""

    name: str
    about: str
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away below a line."""

    summary: str
    blocks: tuple[Block, ...]


Block = Heading | Paragraph | Items | Grid | Picture | Details


def markdown(blocks: Sequence[Block], figures: str = "figures") -> str:
    r"""Return blocks as Markdown; pictures are looked for in the folder `figures`.

    Examples
    --------
    >>> print(markdown([Heading("Toys", 2), Grid(("a", "b"), (("x|y", "1"),))]))
    ## Toys
    <BLANKLINE>
    | a | b |
    |---|---:|
    | x\|y | 1 |
    """
    return "\n\n".join(_markdown(block, figures) for block in blocks)


def markdown_pages(blocks: Iterable[Block], first: str) -> dict[str, str]:
    """Return a report as files of Markdown.

    What stands below a heading that names a page goes to that page, up to the next heading of
    the same level or a higher one; where the heading would have stood it is kept, with a link and
    the pictures of that page.

    Parameters
    ----------
    blocks
        The whole report.
    first
        The file for what has no other page. It, the pages and ``figures`` share a folder, or are
        below it.

    Returns
    -------
    dict
        Texts by file.

    Raises
    ------
    ConfigError
        If two headings name one page.
    """
    pages: dict[str, list[Block]] = {first: []}
    trail = [(first, 0)]
    for block in blocks:
        if isinstance(block, Heading):
            while len(trail) > 1 and trail[-1][1] >= block.level:
                trail.pop()
            if block.page:
                if block.page in pages:
                    raise ConfigError(f"report: two headings name the page {block.page}")
                above = trail[-1][0]
                there = _link(above, block.page)
                pages[above] += [block, Paragraph(f"On [a page of its own]({there}).")]
                pages[block.page] = [Paragraph(_way(block.page, [name for name, _ in trail]))]
                trail.append((block.page, block.level))
        elif len(trail) > 1:
            pages[trail[-2][0]] += pictures([block])
        pages[trail[-1][0]].append(block)
    return {name: markdown(shown, _link(name, "figures")) + "\n" for name, shown in pages.items()}


def _way(page: str, above: Sequence[str]) -> str:
    """Return links to the pages that a page hangs on, the first one first."""
    return " / ".join(f"[{PurePosixPath(name).stem}]({_link(page, name)})" for name in above)


def _link(page: str, to: str) -> str:
    return posixpath.relpath(to, posixpath.dirname(page) or ".")


def _markdown(block: Block, figures: str) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Items):
        return "\n".join(f"- {text}" for text in block.texts)
    if isinstance(block, Picture):
        return f"![{block.about}]({figures}/{block.name}.png)"
    if isinstance(block, Details):
        inside = markdown(block.blocks, figures)
        return f"<details>\n<summary>{block.summary}</summary>\n\n{inside}\n\n</details>"
    rules = ["---" if at < block.left else "---:" for at in range(len(block.header))]
    lines = [_line(block.header), f"|{'|'.join(rules)}|", *(_line(row) for row in block.rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def pictures(blocks: Sequence[Block]) -> list[Picture]:
    """Return all pictures of some blocks, the folded ones too."""
    found: list[Picture] = []
    for block in blocks:
        if isinstance(block, Picture):
            found.append(block)
        elif isinstance(block, Details):
            found += pictures(block.blocks)
    return found
