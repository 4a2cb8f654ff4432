"""A report in pages: what stands where, and how one goes from one to the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextup.errors import ConfigError, RunError
from nextup.studies.document import Block, Details, Heading, Paragraph, Picture, markdown_pages
from nextup.studies.report import write_report
from nextup.studies.study import Study

from .fabricate import fabricate_study


def test_pages_hang_on_each_other() -> None:
    drawn = Picture("drawn", "A figure", b"", b"")
    blocks: list[Block] = [
        Heading("All", 1),
        Heading("One", 2, "one.md"),
        Paragraph("about one"),
        Heading("First", 3, "one/first.md"),
        Details("more", (drawn,)),
        Heading("toys", 4),
        Paragraph("a table"),
        Heading("Second", 3, "one/second.md"),
        Paragraph("another"),
        Heading("Others", 2),
        Paragraph("the rest"),
    ]
    link = "On [a page of its own]"
    figure = "![A figure](figures/drawn.png)"
    assert markdown_pages(blocks, "all.md") == {
        "all.md": f"# All\n\n## One\n\n{link}(one.md).\n\n## Others\n\nthe rest\n",
        "one.md": (
            f"[all](all.md)\n\n## One\n\nabout one\n\n### First\n\n{link}(one/first.md).\n\n"
            f"{figure}\n\n### Second\n\n{link}(one/second.md).\n"
        ),
        "one/first.md": (
            "[all](../all.md) / [one](../one.md)\n\n### First\n\n<details>\n"
            "<summary>more</summary>\n\n![A figure](../figures/drawn.png)\n\n</details>\n\n"
            "#### toys\n\na table\n"
        ),
        "one/second.md": ("[all](../all.md) / [one](../one.md)\n\n### Second\n\nanother\n"),
    }


@pytest.mark.parametrize("page", ["one.md", "all.md"])
def test_two_headings_of_one_page_are_refused(page: str) -> None:
    blocks = [Heading("One", 2, "one.md"), Heading("Two", 2, page)]
    with pytest.raises(ConfigError, match=f"two headings name the page {page}"):
        markdown_pages(blocks, "all.md")


def test_what_is_in_the_way_is_said_before_anything_is_measured(
    plan: Study, tmp_path: Path
) -> None:
    fabricate_study(tmp_path / "results", plan)
    out = tmp_path / "out"
    out.mkdir()
    (out / "study-tiny").write_text("mine")
    with pytest.raises(RunError, match=r"study-tiny: cannot be made a folder .* --out"):
        write_report(tmp_path / "results", out, ["tiny"], False, 200)
    assert (out / "study-tiny").read_text() == "mine" and not (out / "studies.md").exists()


def test_pages_of_parts_that_are_no_more_go(plan: Study, tmp_path: Path) -> None:
    fabricate_study(tmp_path / "results", plan)
    out = tmp_path / "out"
    pages = out / "study-tiny"
    write_report(tmp_path / "results", out, ["tiny"], False, 200)
    assert not (out / "figures").exists()
    (pages / "gone.md").write_text((pages / "table.md").read_text())
    (pages / "mine.md").write_text("a note of my own\n")
    write_report(tmp_path / "results", out, ["tiny"], False, 200)
    assert (pages / "gone.md").exists(), "some studies alone change nothing of what else is there"
    write_report(tmp_path / "results", out, None, False, 200)
    assert not (pages / "gone.md").exists() and (pages / "mine.md").exists()
