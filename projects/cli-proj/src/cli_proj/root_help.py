"""The first page of help, written from the command table without importing the parser."""

from itertools import groupby

from cli_proj.command_table import COMMANDS, EXAMPLES

EXIT_CODES = (
    "0 ok · 1 failed · 2 usage · 3 not found · 4 not signed in or allowed · 5 conflict · 124 timeout · 130 Ctrl-C"
)


def root_help(*, styled: bool) -> str:
    """Return what `evs --help` prints."""

    def bold(text: str) -> str:
        return f"\033[1m{text}\033[0m" if styled else text

    lines = [bold("evs") + ": event-driven services and durable workflows, from the command line", ""]
    lines += [f"  {command:<50} {meaning}" for command, meaning in EXAMPLES]
    for group, entries in groupby(COMMANDS, key=lambda entry: entry.group):
        lines += ["", bold(group)]
        lines += [f"  {entry.name:<11} {entry.help}" for entry in entries]
    lines += ["", "Each has more to say: evs COMMAND --help", f"Exit codes: {EXIT_CODES}"]
    return "\n".join(lines)
