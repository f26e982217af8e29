"""Runs one command: finds it in the table, imports only that, and turns whatever goes wrong into text and a code."""

import os
import sys
from difflib import get_close_matches
from io import TextIOWrapper

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from cli_proj.command_table import COMMANDS
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed
from cli_proj.messages import error_message

# httpx brings a command line of its own where click, pygments and rich are installed: 150 ms for nothing we use.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]


def run(arguments: list[str]) -> int:
    """Run `evs` with `arguments`; returns the exit code. Ctrl-C and a reader who has left are the caller's."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # in JSON, that is how such a character is written anyway
    try:
        _check_command(arguments[0])
        result = build_app()(arguments)
        sys.stdout.flush()
        return result if isinstance(result, int) else ExitCode.OK
    except CycloptsError as error:
        error_message(_what_is_wrong(error), _where_help_is(error))
        return ExitCode.USAGE
    except CommandFailed as failure:
        error_message(failure.text, failure.hint)
        return failure.code
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("EVS_DEBUG"):
            raise
        error_message(
            f"evs itself failed: {type(error).__name__}: {error}", "run it again with EVS_DEBUG=1 to see where"
        )
        return ExitCode.FAILED


def build_app() -> App:
    """Return the parser of all commands; a command's module is imported when the command is used."""
    app = App(
        name="evs",
        version_flags=[],
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        help_format="plaintext",
        default_parameter=Parameter(negative="", show_default=False, consume_multiple=False),
    )
    for entry in COMMANDS:
        app.command(entry.target, name=entry.name, help=entry.help)
    return app


def _check_command(name: str) -> None:
    """Refuse an unknown command before the parser imports every module to suggest another."""
    names = [entry.name for entry in COMMANDS]
    if name in names or name.startswith("-"):
        return
    close = get_close_matches(name, names, n=1)
    raise CommandFailed(
        f"there is no command {name!r}",
        hint=f"did you mean: evs {close[0]}" if close else "evs --help lists them",
        code=ExitCode.USAGE,
    )


def _what_is_wrong(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        return f"{_command_of(error)} takes no further argument, got {' '.join(error.unused_tokens or ())!r}"
    return str(error)


def _where_help_is(error: CycloptsError) -> str:
    return f"{_command_of(error)} --help"


def _command_of(error: CycloptsError) -> str:
    return " ".join(("evs", *(error.command_chain or ())))
