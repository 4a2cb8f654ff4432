"""A report as one HTML page: figures inside, light and dark, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape

from nextup.studies.document import Block, Details, Grid, Heading, Items, Paragraph, Picture

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #ffffff; --soft: #5f6672;
  --line: #dfe3e8; --tint: #f5f7f9; --accent: #0b62a4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #15181c; --soft: #9aa3ae;
  --line: #323840; --tint: #1d2126; --accent: #7cbcf0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; margin: 1rem 0 .5rem; }
h2 { font-size: 1.45rem; margin: 3rem 0 .5rem; padding-top: 1rem;
  border-top: 2px solid var(--line); }
h3 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
h4 { font-size: 1rem; margin: 1.6rem 0 .3rem; color: var(--soft); }
p, ul { max-width: 50rem; margin: .5rem 0; }
nav { margin: 1rem 0; padding: .75rem 1rem; background: var(--tint); border-radius: .5rem; }
nav a { display: inline-block; margin: .1rem 1rem .1rem 0; }
a { color: var(--accent); }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); }
th.left, td.left { text-align: left; }
tbody tr:hover { background: var(--tint); }
code { font: .85em ui-monospace, Menlo, Consolas, monospace; background: var(--tint);
  padding: .1em .3em; border-radius: .25em; overflow-wrap: anywhere; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .875rem; max-width: 50rem; }
@media print { nav { display: none; } h2 { break-before: page; } }
""".strip()


def page(title: str, blocks: Sequence[Block]) -> str:
    """Return a whole page.

    Parameters
    ----------
    title
        What the window is called.
    blocks
        What stands on it; headings of level 2 are listed at its head.
    """
    chapters = [block for block in blocks if isinstance(block, Heading) and block.level == 2]
    links = "".join(f'<a href="#{_anchor(h.text)}">{escape(h.text)}</a>' for h in chapters)
    body = [_html(block) for block in blocks]
    first = 1 if blocks and isinstance(blocks[0], Heading) else 0
    if links:
        body.insert(first, f"<nav>{links}</nav>")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_STYLE}\n</style>",
            "</head>",
            "<body>",
            "<main>",
            *body,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        level = min(block.level, 4)
        name = f' id="{_anchor(block.text)}"' if level == 2 else ""
        return f"<h{level}{name}>{_inline(block.text)}</h{level}>"
    if isinstance(block, Paragraph):
        return f"<p>{_inline(block.text)}</p>"
    if isinstance(block, Items):
        return f"<ul>{''.join(f'<li>{_inline(text)}</li>' for text in block.texts)}</ul>"
    if isinstance(block, Picture):
        return _figure(block)
    if isinstance(block, Details):
        inside = "\n".join(_html(each) for each in block.blocks)
        return f"<details><summary>{_inline(block.summary)}</summary>\n{inside}\n</details>"
    return _table(block)


def _table(grid: Grid) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        made = [
            f"<{tag}{' class=left' if at < grid.left else ''}>{_inline(cell)}</{tag}>"
            for at, cell in enumerate(cells)
        ]
        return f"<tr>{''.join(made)}</tr>"

    body = "\n".join(row(cells, "td") for cells in grid.rows)
    return (
        f'<div class="wide"><table>\n<thead>{row(grid.header, "th")}</thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _figure(picture: Picture) -> str:
    about = escape(picture.about, quote=True)
    return (
        "<figure><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_inlined(picture.dark)}">'
        f'<img src="{_inlined(picture.light)}" alt="{about}">'
        f"</picture><figcaption>{_inline(picture.about)}</figcaption></figure>"
    )


def _inlined(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _inline(text: str) -> str:
    shown = escape(text, quote=False)
    shown = re.sub(r"`([^`]+)`", r"<code>\1</code>", shown)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", shown)


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
