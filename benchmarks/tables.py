"""Markdown tables, and their place between markers in a document."""

from collections.abc import Sequence
from pathlib import Path


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; the first row is its head."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def put(document: Path, marker: str, text: str) -> None:
    """Replace what stands between the markers; append them where there are none."""
    begin, end = f"<!-- {marker} -->", f"<!-- end of {marker} -->"
    before, found, rest = document.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    separator = "" if found else "\n"
    block = f"{before}{separator}{begin}\n{text}\n{end}{after}"
    document.write_text(block, encoding="utf-8")
    print(f"wrote {document}")
