"""`evs approval`: decide what waits for a person."""

from cyclopts import App

from cli_proj import moments
from cli_proj.api import path_of
from cli_proj.column import Column, Item
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed
from cli_proj.identity import acts_as_program
from cli_proj.messages import printable
from cli_proj.options import Options
from cli_proj.printing import write
from cli_proj.session import Session, connected

app = App(name="approval")

COLUMNS = (
    Column("id", lambda approval: approval["id"]),
    Column("status", lambda approval: approval["status"], is_status=True),
    Column("workflow", lambda approval: approval["workflow"]),
    Column("to", lambda approval: approval["to"], is_optional=True),
    Column("age", lambda approval: moments.age(approval["asked_at"]), align_right=True),
    Column("question", lambda approval: approval["text"], is_wide=True),
)


@app.command(name="list")
async def list_approvals(
    *,
    all: bool = False,  # noqa: A002 - the option's name
    run: str | None = None,
    limit: int = 50,
    options: Options = Options(),  # noqa: B008
) -> None:
    """List what waits for a decision.

    Parameters
    ----------
    all
        Also what is decided or expired.
    run
        Only of this run.
    limit
        How many at most.
    """
    async with connected(options) as session:
        status = None if all else "pending"
        items = await session.app.pages("/v1/approvals", limit=limit, status=status, run=run)
        session.output.items(items, COLUMNS, empty="nothing waits for a decision")


@app.command
async def approve(id: str, /, *, comment: str | None = None, options: Options = Options()) -> None:  # noqa: A002, B008
    """Approve.

    Parameters
    ----------
    id
        The approval's id; see: evs approval list.
    comment
        Why; kept with the decision.
    """
    await _decide(id, approved=True, comment=comment, options=options)


@app.command
async def reject(id: str, /, *, comment: str | None = None, options: Options = Options()) -> None:  # noqa: A002, B008
    """Reject.

    Parameters
    ----------
    id
        The approval's id; see: evs approval list.
    comment
        Why; kept with the decision.
    """
    await _decide(id, approved=False, comment=comment, options=options)


async def _decide(approval: str, *, approved: bool, comment: str | None, options: Options) -> None:
    async with connected(options) as session:
        body = {"approved": approved} | ({"comment": comment} if comment else {})
        try:
            decided = await session.app.post(path_of("approvals", approval, "decision"), body)
        except CommandFailed as failure:
            raise _explain(session, failure) from failure
        session.output.item(decided, _show)


def _explain(session: Session, failure: CommandFailed) -> CommandFailed:
    """A program never decides in somebody's name: say who can."""
    if acts_as_program(session.context) and failure.code == ExitCode.NOT_ALLOWED:
        hint = "evs auth login: a decision needs a person"
        return CommandFailed(failure.text, hint=hint, code=failure.code)
    return failure


def _show(approval: Item) -> None:
    write(printable(f"{approval['status']}: {approval['text']}") + "\n")
