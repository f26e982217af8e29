"""What the exit code of `evs` says to a script."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The codes every command uses; they are public interface."""

    OK = 0
    FAILED = 1  # the run failed, or something else did
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4  # not signed in, or not allowed
    CONFLICT = 5
    TIMEOUT = 124  # as of timeout(1)
    INTERRUPTED = 130  # as of a shell: 128 + SIGINT
