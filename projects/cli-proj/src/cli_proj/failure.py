"""A command that cannot do what it was asked: what went wrong, what to do next, which exit code."""

from cli_proj.exit_codes import ExitCode


class CommandFailed(Exception):
    """Ends the command; `text` says what is wrong, `hint` what to do next."""

    def __init__(self, text: str, *, hint: str | None = None, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint
        self.code = code


def usage(text: str, *, hint: str | None = None) -> CommandFailed:
    """Return the failure for a command line that must be written otherwise."""
    return CommandFailed(text, hint=hint, code=ExitCode.USAGE)


def not_found(text: str, *, hint: str | None = None) -> CommandFailed:
    """Return the failure for something that is not there."""
    return CommandFailed(text, hint=hint, code=ExitCode.NOT_FOUND)


def not_allowed(text: str, *, hint: str | None = None) -> CommandFailed:
    """Return the failure for somebody who is not signed in or not allowed."""
    return CommandFailed(text, hint=hint, code=ExitCode.NOT_ALLOWED)


def conflict(text: str, *, hint: str | None = None) -> CommandFailed:
    """Return the failure for something that contradicts what is there."""
    return CommandFailed(text, hint=hint, code=ExitCode.CONFLICT)
