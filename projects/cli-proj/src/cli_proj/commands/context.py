"""`evs context`: which product the commands talk to."""

from dataclasses import asdict, replace

from cyclopts import App

from cli_proj.column import Column
from cli_proj.config import Server, load_config, save_config
from cli_proj.context import ENVIRONMENT, LOCAL, check_url, find_data, read_local_context, resolve_context
from cli_proj.failure import CommandFailed, not_found, usage
from cli_proj.messages import message
from cli_proj.options import OutputOption
from cli_proj.output import Output
from lib_auth.token_store import CONTEXT_NAME

app = App(name="context")

COLUMNS = (
    Column("", lambda context: "*" if context["current"] else ""),
    Column("name", lambda context: context["name"]),
    Column("appservice", lambda context: context["app_url"]),
    Column("authservice", lambda context: context["auth_url"], is_optional=True),
    Column("gui", lambda context: context["gui_url"], is_optional=True),
    Column("", lambda context: context["remark"], is_wide=True),
)


@app.command(name="list")
def list_contexts(*, output: OutputOption = "table") -> None:
    """List the products that the commands can talk to; * is the current one.

    Parameters
    ----------
    output
        How to print the answer.
    """
    config = load_config()
    current = _current_name()
    rows = [_local_row()]
    rows += [{"name": name, **asdict(server), "remark": ""} for name, server in sorted(config.servers.items())]
    items = [row | {"current": row["name"] == current} for row in rows]
    Output(output).items(items, COLUMNS, empty="")


@app.command
def use(name: str, /) -> None:
    """Make a context the current one.

    Parameters
    ----------
    name
        Its name; `local` is what runs here or above.
    """
    config = load_config()
    if name != LOCAL and name not in config.servers:
        raise not_found(f"there is no context {name!r}", hint="evs context list")
    save_config(replace(config, current=None if name == LOCAL else name))
    message(f"the commands talk to {name} now")


@app.command
def add(name: str, /, *, app_url: str, auth_url: str, gui_url: str | None = None) -> None:
    """Remember a product under a name.

    Parameters
    ----------
    name
        Its name here.
    app_url
        Where its AppService is.
    auth_url
        Where its AuthService is.
    gui_url
        Where its GUI is.
    """
    if name in (LOCAL, ENVIRONMENT):
        raise usage(f"the name {name!r} is taken by evs itself; choose another")
    if not CONTEXT_NAME.fullmatch(name):
        raise usage(f"a context's name must match {CONTEXT_NAME.pattern}, got {name!r}; choose another")
    server = Server(
        auth_url=check_url("--auth-url", auth_url),
        app_url=check_url("--app-url", app_url),
        gui_url=check_url("--gui-url", gui_url) if gui_url else "",
    )
    save_config(load_config().with_server(name, server))
    message(f"added {name}; use it with: evs context use {name}")


def _local_row() -> dict[str, str]:
    data = find_data()
    row = {"name": LOCAL, "app_url": "", "auth_url": "", "gui_url": "", "remark": "nothing runs here"}
    if data is None:
        return row
    try:
        context = read_local_context(data)
    except CommandFailed:
        return row | {"remark": f"nothing runs on {data}"}
    urls = {"app_url": context.app_url, "auth_url": context.auth_url, "gui_url": context.gui_url}
    return row | urls | {"remark": str(data)}


def _current_name() -> str:
    try:
        return resolve_context().name
    except CommandFailed:
        return load_config().current or LOCAL
