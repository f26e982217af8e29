"""`evs admin audit`: what happened, and the proof that nothing of it was changed."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

from cyclopts import App

from cli_proj import moments
from cli_proj.api import Service
from cli_proj.column import Column, Item
from cli_proj.commands.admin import administering
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed, usage
from cli_proj.options import Options
from cli_proj.printing import write
from lib_auth.audit_chain import ChainBroken, ChainVerifier, Head

app = App(
    name="audit",
    help_epilogue="""Examples:
  evs admin audit list --what user.roles-changed
  evs admin audit tail
  evs admin audit verify --head "$(cat yesterdays-head)"
  evs admin audit export > audit.jsonl
""",
)

COLUMNS = (
    Column("age", lambda line: moments.age(line["at"]), align_right=True),
    Column("what", lambda line: line["what"]),
    Column("who", lambda line: line["who"]),
    Column("about", lambda line: line["about"]),
    Column("from", lambda line: line["address"], is_optional=True),
    Column("detail", lambda line: json.dumps(line["detail"]) if line["detail"] else "", is_wide=True),
)
LOOK_SECONDS = 1.0  # between two looks for new lines
PAGE = 500


@app.command(name="list")
async def list_lines(
    *,
    what: str | None = None,
    who: str | None = None,
    about: str | None = None,
    limit: int = 50,
    options: Options = Options(),  # noqa: B008
) -> None:
    """List what happened, newest first.

    Parameters
    ----------
    what
        Only this, such as user.disabled.
    who
        Only what this subject did.
    about
        Only what was done to the thing with this id.
    limit
        How many at most.
    """
    async with administering(options) as session:
        items = await session.auth.pages("/v1/admin/audit", limit=limit, what=what, who=who, about=about)
        session.output.items(items, COLUMNS, empty="there are no such lines")


@app.command
async def tail(*, options: Options = Options()) -> None:  # noqa: B008
    """Show what happens from now on, until Ctrl-C."""
    async with administering(options) as session:
        after = (await session.auth.get("/v1/admin/audit/head"))["position"]
        while True:
            async for line in _chain(session.auth, after):
                after = line["position"]
                if session.output.is_table:
                    write(_one_line(line) + "\n")
                    sys.stdout.flush()
                else:
                    session.output.record(line)
            await asyncio.sleep(LOOK_SECONDS)


@app.command
async def head(*, options: Options = Options()) -> None:  # noqa: B008
    """Print where the audit's chain ends: keep it elsewhere, and verify finds lines that were cut off at the end."""
    async with administering(options) as session:
        found = await session.auth.get("/v1/admin/audit/head")
        session.output.item(found, lambda item: write(f"{Head(item['position'], item['hash'])}\n"))


@app.command
async def verify(*, head: str | None = None, options: Options = Options()) -> int:  # noqa: B008
    """Check here, line by line, that nothing of the audit was changed; exit code 1 when something was.

    Parameters
    ----------
    head
        A head written down before (evs admin audit head): it must still be there.
    """
    try:
        known = Head.parse(head) if head is not None else None
    except ValueError as error:
        raise usage(str(error)) from error
    async with administering(options) as session:
        try:
            verifier = await _verify(session.auth, known)
        except ChainBroken as broken:
            text = f"the audit is broken: {broken}"
            raise CommandFailed(text, hint="compare it with a backup from before") from broken
        found = {"lines": verifier.lines, "since": verifier.since, "head": str(verifier.head), "unbroken": True}
        session.output.item(found, lambda _item: write(verifier.verdict() + "\n"))
    return ExitCode.OK


@app.command
async def export(*, after: int = 0, options: Options = Options()) -> None:  # noqa: B008
    """Print the whole audit in the chain's order, a line of JSON each.

    Parameters
    ----------
    after
        Only what comes after this position.
    """
    if after < 0:
        raise usage(f"--after must be 0 or more, got {after}")
    async with administering(options) as session:
        async for line in _chain(session.auth, after):
            write(json.dumps(line, ensure_ascii=False) + "\n")


async def _verify(auth: Service, known: Head | None) -> ChainVerifier:
    while True:
        told = await auth.get("/v1/admin/audit/head")
        try:
            return await _follow(auth, told, known)
        except ChainBroken:
            # Lines that are pruned while one reads them are gone, and nothing is wrong.
            if (await auth.get("/v1/admin/audit/head"))["anchor"] == told["anchor"]:
                raise


async def _follow(auth: Service, told: Mapping[str, Any], known: Head | None) -> ChainVerifier:
    """What was chained as `told` has to be there; what comes meanwhile is looked at, too."""
    anchor = told["anchor"]
    verifier = ChainVerifier(Head(anchor["position"], anchor["hash"]), known=known)
    async for line in _chain(auth, anchor["position"]):
        verifier.add(line)
    verifier.finish(Head(told["position"], told["hash"]), waiting=told["waiting"])
    return verifier


async def _chain(auth: Service, after: int) -> AsyncIterator[dict[str, Any]]:
    cursor: str | None = str(after)
    while cursor is not None:
        page = await auth.get("/v1/admin/audit/chain", after=cursor, limit=PAGE)
        for line in page["items"]:
            yield line
        cursor = page["next_cursor"]


def _one_line(line: Item) -> str:
    parts = (line["at"], line["what"], line["who"] or "-", line["about"] or "", json.dumps(line["detail"]))
    return "  ".join(part for part in parts if part and part != "{}")
