"""Fan-out/fan-in: check a table's rows in parallel, publish the good ones in batches, report on the rest.

The text of the file is stored once, as the run's input. Steps get their part of it as a `SourceText`, which the
history shows by its size only: on a replay the workflow cuts the same parts from the same input again. What a
part's step returns, its typed rows, is in the history once, and once more in the batch's event. That event is
published by a transaction under an id made of run and batch, so neither a crash nor a retry can publish it twice.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from sqlalchemy import select

from app_svc.column_types import Value
from app_svc.table_plan import Column, Fault, Part, TablePlan, make_plan, read_part
from app_svc.table_profile import ColumnProfile, profile_columns
from app_svc.table_text import TableMalformed
from lib_events.database import Connection
from lib_events.event import Cause, Event
from lib_events.tables import events
from lib_workflows import Context, EventType, step, workflow

PARALLEL_PARTS = 8
REPORTED_FAULTS = 1_000

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
NAMES_OF_DELIMITERS = {character: name for name, character in DELIMITERS.items()}

type FormatName = Literal["auto", "csv", "jsonl"]
type DelimiterName = Literal["auto", "comma", "semicolon", "tab", "pipe"]
type SourceText = Annotated[str, PlainSerializer(lambda text: f"({len(text)} characters of the input)")]
type SourceRows = Annotated[list[list[Value]], PlainSerializer(lambda rows: f"({len(rows)} rows of earlier steps)")]


class TableInput(BaseModel):
    """The table to import."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, description="What the table is called from now on")
    data: str = Field(
        description="The file: CSV with or without a header line, or one JSON object per line; UTF-8",
        json_schema_extra={"contentMediaType": "text/csv"},
    )
    format: FormatName = "auto"
    delimiter: Annotated[
        DelimiterName, BeforeValidator(lambda given: NAMES_OF_DELIMITERS.get(given, given) if given else "auto")
    ] = "auto"
    chunk_rows: int = Field(default=500, ge=1, le=5_000, description="Rows checked and published together, at most")


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows of a table that passed every check; each has a value for each of `columns`."""

    table: str
    run: str
    batch: int
    columns: list[str]
    rows: list[list[Value]]


@dataclass(frozen=True, slots=True)
class CheckedPart:
    """What became of one part."""

    rows: list[list[Value]]
    rejects: list[Fault]


@dataclass(frozen=True, slots=True)
class TableReport:
    """What was imported; `rejects` are the first thousand rejected rows."""

    name: str
    format: str
    rows: int
    accepted: int
    rejected: int
    batches: int
    columns: list[ColumnProfile]
    rejects: list[Fault]


type ShownByItsSize = Annotated[
    RowBatch, PlainSerializer(lambda batch: f"(batch {batch.batch}: {len(batch.rows)} rows of an earlier step)")
]

RowsAccepted = EventType("table.rows.accepted", RowBatch)


@step(errors=(TableMalformed,))
def plan_table(text: SourceText, file_format: FormatName, delimiter: DelimiterName, part_rows: int) -> TablePlan:
    """Find the format, the columns and their types, and cut the text into parts."""
    return make_plan(text, file_format=file_format, delimiter=DELIMITERS.get(delimiter), part_rows=part_rows)


@step
def check_part(text: SourceText, first_line: int, plan: TablePlan) -> CheckedPart:
    """Read one part by the plan: typed rows, and the lines that do not fit with the reason."""
    rows, faults = read_part(text, first_line, plan)
    return CheckedPart(rows, faults)


@step
def profile_table(columns: list[Column], rows: SourceRows) -> list[ColumnProfile]:
    """Profile the accepted rows."""
    return profile_columns(columns, rows)


def publish_batch(connection: Connection, batch: ShownByItsSize, cause: Cause) -> str:
    """Publish the rows of one part and return the event's id."""
    identifier = f"{batch.run}:batch-{batch.batch}"
    mine = (events.c.source == connection.source) & (events.c.id == identifier)
    if connection.scalar(select(events.c.id).where(mine)) is None:
        event = Event.of(RowsAccepted, batch, source=connection.source, subject=batch.run, cause=cause, id=identifier)
        connection.publish(event)
    return identifier


@workflow(name="import-table", version=1, type="fan-out/fan-in", errors=(TableMalformed,))
async def import_table(ctx: Context, table: TableInput) -> TableReport:
    """Import a CSV or JSON-lines file: infer column types, check rows in parallel, publish the good ones in batches.

    Rows that do not fit are rejected with their line number and the reason; the result profiles every column.
    """
    plan = await ctx.step(plan_table, table.data, table.format, table.delimiter, table.chunk_rows)
    await ctx.set_view("columns", {column.name: column.type for column in plan.columns})
    # The parts' own business is not what their steps are told: the plan without the parts is small.
    part_plan = TablePlan(plan.format, plan.delimiter, plan.has_header, plan.columns, plan.rows, parts=[])
    cause = ctx.run.cause()
    done = 0

    async def import_part(part: Part) -> CheckedPart:
        nonlocal done
        checked = await ctx.step(check_part, table.data[part.start : part.end], part.first_line, part_plan)
        if checked.rows:
            names = [column.name for column in plan.columns]
            batch = RowBatch(table.name, ctx.run_id, part.number, names, checked.rows)
            await ctx.transaction(publish_batch, batch, cause)
        done += part.rows
        ctx.progress(done / plan.rows, f"{done} of {plan.rows} rows checked")
        return checked

    parts = await ctx.gather(*(import_part(part) for part in plan.parts), limit=PARALLEL_PARTS)
    rows = [row for part in parts for row in part.rows]
    rejects = [fault for part in parts for fault in part.rejects]
    columns = await ctx.step(profile_table, plan.columns, rows)
    return TableReport(
        name=table.name,
        format=plan.format,
        rows=plan.rows,
        accepted=len(rows),
        rejected=len(rejects),
        batches=sum(bool(part.rows) for part in parts),
        columns=columns,
        rejects=rejects[:REPORTED_FAULTS],
    )
