"""`evs` and `python -m cli_proj`: answers what needs no parser by itself, hands the rest to `cli_proj.main`."""

import os
import sys


def main() -> int:
    """Run `evs` with the arguments of this process; returns the exit code."""
    try:
        code = _answer(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _answer(arguments: list[str]) -> int:
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    if arguments in (["--version"], ["-V"]):
        from importlib.metadata import version  # noqa: PLC0415 - each branch pays for its own imports only

        print(f"evs {version('cli-proj')}")  # noqa: T201 - the data that was asked for
        return 0
    if arguments in ([], ["--help"], ["-h"]):
        from cli_proj.messages import shows_colour  # noqa: PLC0415
        from cli_proj.root_help import root_help  # noqa: PLC0415

        print(root_help(styled=shows_colour(sys.stdout)))  # noqa: T201
        return 0
    from cli_proj.main import run  # noqa: PLC0415

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
