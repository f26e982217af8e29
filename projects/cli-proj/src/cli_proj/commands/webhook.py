"""`evs webhook`: have events sent to a URL, and see how that goes."""

from cyclopts import App

from cli_proj import moments
from cli_proj.api import path_of
from cli_proj.column import Column, Item
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import usage
from cli_proj.messages import message, printable
from cli_proj.options import Options
from cli_proj.printing import print_fields, write
from cli_proj.session import connected

app = App(name="webhook")

COLUMNS = (
    Column("id", lambda webhook: webhook["id"]),
    Column("state", lambda webhook: webhook["state"], is_status=True),
    Column("types", lambda webhook: ", ".join(webhook["types"])),
    Column("failures", lambda webhook: webhook["failures"], align_right=True, is_optional=True),
    Column("age", lambda webhook: moments.age(webhook["created_at"]), align_right=True, is_optional=True),
    Column("url", lambda webhook: webhook["url"], is_wide=True),
)
DELIVERY_COLUMNS = (
    Column("age", lambda delivery: moments.age(delivery["sent_at"]), align_right=True),
    Column("attempt", lambda delivery: delivery["attempt"], align_right=True),
    Column("status", lambda delivery: delivery["status"] or "none", align_right=True),
    Column("ms", lambda delivery: round(delivery["duration_ms"]), align_right=True),
    Column("type", lambda delivery: delivery["event_type"]),
    Column("error", lambda delivery: delivery["error"] or "", is_wide=True),
)
FIELDS = ("id", "url", "types", "subject", "owner", "state", "reason", "failures", "next_attempt_at", "created_at")


@app.command(name="list")
async def list_webhooks(*, limit: int = 50, options: Options = Options()) -> None:  # noqa: B008
    """List your webhooks; an operator sees all.

    Parameters
    ----------
    limit
        How many at most.
    """
    async with connected(options) as session:
        items = await session.app.pages("/v1/webhooks", limit=limit)
        session.output.items(items, COLUMNS, empty="there are no webhooks")


@app.command
async def create(
    url: str,
    /,
    *,
    type: tuple[str, ...] = (),  # noqa: A002 - the option's name
    subject: str | None = None,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Send events to a URL from now on; prints the secret that signs them, once.

    Parameters
    ----------
    url
        Where to; https, at a public address.
    type
        Only of this type, such as order.* or order.shipment.sent. May be repeated.
    subject
        Only about this thing, such as a run's id.
    """
    if not type:
        raise usage("which events?", hint="evs webhook create URL --type 'order.*'")
    async with connected(options) as session:
        body = {"url": url, "types": list(type), "subject": subject}
        session.output.item(await session.app.post("/v1/webhooks", body), _show_secret)


@app.command
async def show(id: str, /, *, deliveries: int = 10, options: Options = Options()) -> None:  # noqa: A002, B008
    """Show a webhook, and what became of its last deliveries.

    Parameters
    ----------
    id
        The webhook's id; see: evs webhook list.
    deliveries
        How many at most.
    """
    async with connected(options) as session:
        webhook = await session.app.get(_path(id))
        page = await session.app.get(_path(id, "deliveries"), limit=deliveries)
        session.output.item(webhook | {"deliveries": page["items"]}, _show)


@app.command(name="test")
async def send_test(id: str, /, *, options: Options = Options()) -> int:  # noqa: A002, B008
    """Send a test at once; exit code 1 when it is not delivered.

    Parameters
    ----------
    id
        The webhook's id; see: evs webhook list.
    """
    async with connected(options) as session:
        tested = await session.app.post(_path(id, "test"))
        session.output.item(tested, _show_test)
        return ExitCode.OK if tested["delivered"] else ExitCode.FAILED


@app.command
async def rotate(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Make a new secret and print it, once; for a day the last one signs too.

    Parameters
    ----------
    id
        The webhook's id; see: evs webhook list.
    """
    async with connected(options) as session:
        session.output.item(await session.app.post(_path(id, "rotate")), _show_secret)


@app.command
async def pause(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Send nothing until it is resumed; events wait.

    Parameters
    ----------
    id
        The webhook's id; see: evs webhook list.
    """
    async with connected(options) as session:
        session.output.item(await session.app.post(_path(id, "pause")), _show_state)


@app.command
async def resume(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Send again from where it stood, also what is disabled or interrupted.

    Parameters
    ----------
    id
        The webhook's id; see: evs webhook list.
    """
    async with connected(options) as session:
        session.output.item(await session.app.post(_path(id, "resume")), _show_state)


@app.command
async def delete(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Send nothing more, and forget it with its deliveries and dead letters.

    Parameters
    ----------
    id
        The webhook's id; see: evs webhook list.
    """
    async with connected(options) as session:
        await session.app.call("DELETE", _path(id))
        message(f"{id} is deleted")


def _path(webhook: str, *rest: str) -> str:
    return path_of("webhooks", webhook, *rest)


def _show(webhook: Item) -> None:
    print_fields((name, webhook[name]) for name in FIELDS)
    if webhook["deliveries"]:
        write("\n")
        from cli_proj.table import print_table  # noqa: PLC0415 - only people need tables

        print_table(webhook["deliveries"], DELIVERY_COLUMNS)


def _show_secret(webhook: Item) -> None:
    print_fields((name, webhook[name]) for name in ("id", "url", "secret"))
    message("the secret is not shown again: keep it where the receiver verifies with it")


def _show_test(tested: Item) -> None:
    outcome = f"delivered, {tested['status']}" if tested["delivered"] else f"not delivered: {tested['error']}"
    write(printable(f"{outcome} ({tested['duration_ms']:.0f} ms)") + "\n")


def _show_state(webhook: Item) -> None:
    write(printable(f"{webhook['state']}: {webhook['id']}") + "\n")
