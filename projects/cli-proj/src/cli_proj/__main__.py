"""`evs` and `python -m cli_proj`: answers what needs no parser by itself, hands the rest to `cli_proj.main`."""

import sys

HELP: tuple[list[str], ...] = ([], ["--help"], ["-h"], ["help"])


def main() -> int:
    """Run `evs` with the arguments of this process; returns the exit code."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        from importlib.metadata import version  # noqa: PLC0415 - each branch pays for its own imports only

        print(f"evs {version('cli-proj')}")  # noqa: T201 - the data that was asked for
        return 0
    if arguments in HELP:
        from cli_proj.root_help import root_help, wants_style  # noqa: PLC0415

        print(root_help(styled=wants_style()))  # noqa: T201
        return 0
    from cli_proj.main import run  # noqa: PLC0415

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
