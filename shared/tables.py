"""Tables that fit the terminal: what would be broken inside a name or a time stands as blocks of lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from shared.cli import make_table


class Rows(NamedTuple):
    """A table if it is not wider than the terminal, else each row as a block. `what` is said where there is none.

    Cells are texts, rich's `Text` or numbers.
    """

    columns: Sequence[str]
    cells: Sequence[Sequence[object]]
    what: str

    @property
    def width(self) -> int:
        """Columns of a terminal in which the table stands without breaking a cell."""
        widest = [max(cell_len(str(cell)) for cell in column) for column in zip(self.columns, *self.cells, strict=True)]
        return sum(widest) + 2 * (len(widest) - 1)  # as make_table sets them apart

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """For rich."""
        if not self.cells:
            yield f"no {self.what}"
        elif self.width <= options.max_width:
            yield make_table(self.columns, self.cells)
        else:
            for number, row in enumerate(self.cells):
                if number:
                    yield ""
                yield block(zip(self.columns, row, strict=True))


def block(lines: Iterable[Sequence[object]]) -> Table:
    """One thing, a line for each of its values."""
    table = make_table(("", ""), lines)
    table.show_header = False
    return table
