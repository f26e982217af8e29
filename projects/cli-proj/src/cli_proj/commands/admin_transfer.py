"""`evs admin export` and `evs admin import`: the whole configuration as one document."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli_proj.column import Column
from cli_proj.commands.admin import administering
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed, not_found, usage
from cli_proj.messages import message
from cli_proj.options import Options
from cli_proj.printing import write

PEOPLE_AT_ONCE = 1_000
PRIVATE = 0o600  # it names everybody, and may hold what guesses at passwords can be checked against
COLUMNS = (
    Column("outcome", lambda item: item["outcome"]),
    Column("kind", lambda item: item["kind"]),
    Column("name", lambda item: item["name"]),
    Column("why", lambda item: item["why"], is_wide=True),
)


async def export(
    file: Path | None = None,
    /,
    *,
    secrets: bool = False,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Write users, groups, roles, resources and clients as one JSON document.

    Parameters
    ----------
    file
        Where to (default: standard output).
    secrets
        With the hashes of passwords and client secrets; needs a sign-in of the last five minutes.
    """
    async with administering(options) as session:
        document = await session.auth.get("/v1/admin/export", secrets="true" if secrets else None)
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    if file is None:
        write(text)
        return
    try:
        file.touch(PRIVATE)
        file.chmod(PRIVATE)
        file.write_text(text)
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror}") from error
    message(f"{file} holds {', '.join(f'{len(document[kind])} {kind}' for kind in document if kind[-1] == 's')}")


async def import_(file: Path, /, *, dry_run: bool = False, options: Options = Options()) -> int:  # noqa: B008
    """Bring what an export, or a Keycloak realm's export, says into the product; twice is as good as once.

    Parameters
    ----------
    file
        The document.
    dry_run
        Say what would happen, and change nothing.
    """
    document = _read(file)
    async with administering(options) as session:
        report: dict[str, Any] = {}
        for part in _parts(document):
            query = {"dry_run": "true" if dry_run else None}
            report = _merged(report, await session.auth.call("POST", "/v1/admin/import", query=query, body=part))
        told = [item for item in report["items"] if item["outcome"] != "unchanged"]
        if session.output.is_table:
            session.output.items(told, COLUMNS, empty="there is nothing to change")
        else:
            session.output.item(report, lambda _report: None)
    counts = ", ".join(f"{number} {outcome}" for outcome, number in report["counts"].items())
    message(f"{counts}{' (nothing was changed: a dry run)' if dry_run else ''}")
    return ExitCode.FAILED if report["counts"]["refused"] else ExitCode.OK


def _parts(document: Any) -> Iterator[Any]:
    """Yield the document with some of its people at a time: each request is answered soon."""
    people = document.get("users") if isinstance(document, dict) else None
    if not isinstance(people, list) or len(people) <= PEOPLE_AT_ONCE:
        yield document
        return
    for first in range(0, len(people), PEOPLE_AT_ONCE):
        message(f"{first} of {len(people)} people")
        yield document | {"users": people[first : first + PEOPLE_AT_ONCE]}


def _merged(report: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Add another part's report; what is not about people is the same in each, and told once."""
    if not report:
        return more
    people = [item for item in more["items"] if item["kind"] == "user"]
    counts = dict(report["counts"])
    for item in people:
        counts[item["outcome"]] += 1
    return report | {"counts": counts, "items": report["items"] + people}


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError as error:
        raise not_found(f"there is no file {file}") from error
    except (OSError, ValueError) as error:
        raise usage(f"{file} must be a JSON document: {error}") from error
