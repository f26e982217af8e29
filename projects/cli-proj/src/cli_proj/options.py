"""The options that every command with output has."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

type Format = Literal["table", "json", "jsonl", "yaml"]
OutputOption = Annotated[Format, Parameter(name=("--output", "-o"))]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to answer, and which product to ask."""

    output: OutputOption = "table"
    "How to print the answer."
    context: Annotated[str | None, Parameter(env_var="EVS_CONTEXT")] = None
    "Which product to talk to; see: evs context list."
