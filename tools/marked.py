"""Parts of a page that are made, between marks in it."""

from __future__ import annotations


def with_part(page: str, begin: str, end: str, made: str) -> str:
    """The page with `made` between these marks, in place of what stood there.

    Raises:
        ValueError: the marks are not there.
    """
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"the page lacks the marks {begin} and {end}")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"
