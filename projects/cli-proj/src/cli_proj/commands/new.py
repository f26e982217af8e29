"""`evs new`: makes a service or a workflow that runs as it is, to be changed into one's own."""

from pathlib import Path

from cyclopts import App

from cli_proj.failure import usage
from cli_proj.messages import message, printable
from cli_proj.new.names import read_name, refuse_imported, refuse_settings
from cli_proj.new.template import SERVICE, WORKFLOW, filled, place_files, place_folder
from cli_proj.printing import write

app = App(
    name="new",
    help_epilogue="""Examples:
  evs new service orders
  evs new workflow daily-report --into flows
""",
)


@app.command
def service(name: str, /, *, into: str = "projects") -> None:
    """Make a member of the workspace: a service that lets in who has a token, with tests, packaged, ready for an image.

    Parameters
    ----------
    name
        What it is called: lower-case words with - between them.
    into
        Which folder of the workspace it goes to.
    """
    from cli_proj.new.workspace import find_workspace  # noqa: PLC0415 - a workflow needs no workspace

    read = read_name(name)
    workspace = find_workspace(Path.cwd().resolve())
    workspace.refuse_without_sign_in()
    workspace.refuse_taken(read)
    refuse_settings(read)
    place = workspace.place_of(read, into)
    if not place.exists():
        refuse_imported(read)
    port = workspace.free_port()
    place_folder(filled(SERVICE, read, port=port), place, beside=workspace.root)
    write(printable(f"{place}\n"))
    workspace.lock()
    _say_next(
        f"uv run pipeline lint types test build {read.text}",
        f"uv run {read.text}    # http://127.0.0.1:{port}",
        f"uv run pipeline image {read.text}",
    )


@app.command
def workflow(name: str, /, *, into: Path | None = None) -> None:
    """Make a workflow in one file, and its test beside it.

    Parameters
    ----------
    name
        What it is called: lower-case words with - between them.
    into
        Which folder the files go to (default: this one).
    """
    read = read_name(name)
    folder = into or Path()
    if not folder.is_dir():
        raise usage(f"--into must be a folder, got {folder}; make it first", hint=f"mkdir -p {folder}")
    source = folder / f"{read.package}.py"
    if not source.exists():
        refuse_imported(read)
    made = place_files(filled(WORKFLOW, read), folder)
    write("".join(printable(f"{path}\n") for path in made))
    _say_next(f"uv run evs up --workflows {source}", f"uv run evs run start {read.text} -p name=Ada --watch")


def _say_next(*commands: str) -> None:
    message("try:")
    for command in commands:
        message(printable(f"  {command}"))
