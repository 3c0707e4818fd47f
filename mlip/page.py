"""Reports as one HTML file, with their pictures inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from ase_neuralxc.records.files import atomic_write

_STYLE = (
    "body{font-family:sans-serif;max-width:70em;margin:auto}img{max-width:100%}"
    "td,th{padding:.1em .8em;text-align:right}td:first-child,th:first-child{text-align:left}"
    "pre{overflow-x:auto}"
)


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{html.escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{html.escape(text)}</p>"


def preformatted(text: str, summary: str | None = None) -> str:
    """A table of text as it is; under a line to click on, if one is given.

    Args:
        text: lines of equal columns.
        summary: the line to click on, None to show the text at once.

    Returns:
        HTML.
    """
    block = f"<pre>{html.escape(text)}</pre>"
    if summary is None:
        return block
    return f"<details><summary>{html.escape(summary)}</summary>{block}</details>"


def picture(path: Path, name: str) -> str:
    """A PNG file, as part of the page.

    Args:
        path: the file.
        name: what it shows, for those who do not see it.

    Returns:
        HTML.
    """
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{encoded}">'


def write_html(path: Path, title: str, blocks: Sequence[str]) -> None:
    """Write a page, at once or not at all.

    Args:
        path: the file.
        title: of the window, and the first heading.
        blocks: HTML of `heading`, `paragraph`, ...
    """
    page = (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style>{heading(title, 1)}{''.join(blocks)}\n"
    )
    atomic_write(path, page.encode())
