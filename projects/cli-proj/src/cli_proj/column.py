"""What a table shows, said without anything that draws one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

type Item = Mapping[str, Any]  # one thing that a service told of


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its heading and what it shows of an item."""

    heading: str
    value: Callable[[Item], object]
    is_status: bool = False
    is_wide: bool = False  # gets the room that is left, and is cut to it
    is_optional: bool = False  # left out on a narrow terminal
    align_right: bool = False
