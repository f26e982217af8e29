"""`evs admin export` and `evs admin import`: the whole configuration as one document."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli_proj import sealed_document
from cli_proj.column import Column
from cli_proj.commands.admin import administering
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed, not_found, usage
from cli_proj.messages import message
from cli_proj.options import Options
from cli_proj.printing import write
from lib_events.secret_file import write_secret

PEOPLE_AT_ONCE = 1_000
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
    sealed: bool = False,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Write users, groups, roles, resources, clients and upstreams as one JSON document.

    Parameters
    ----------
    file
        Where to (default: standard output).
    secrets
        With what people and clients prove themselves with: hashes of passwords, client secrets and recovery codes,
        passkeys, and in clear the secrets of authenticator apps and at upstreams. Needs a sign-in of the last
        five minutes.
    sealed
        Encrypted with a passphrase, from EVS_EXPORT_PASSPHRASE or typed; the import asks for it.
    """
    passphrase = sealed_document.new_passphrase() if sealed else None
    async with administering(options) as session:
        document = await session.auth.get("/v1/admin/export", secrets="true" if secrets else None)
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    if passphrase is not None:
        text = sealed_document.seal(text, passphrase)
    if file is None:
        write(text)
        return
    try:
        _keep(file, text)
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror}") from error
    message(f"{file} holds {', '.join(f'{len(document[kind])} {kind}' for kind in document if kind[-1] == 's')}")


async def import_(file: Path, /, *, dry_run: bool = False, options: Options = Options()) -> int:  # noqa: B008
    """Bring what an export says into the product, also Keycloak's or Django's; twice is as good as once.

    Parameters
    ----------
    file
        The document: of `evs admin export`, sealed or not, of `kc.sh export`, or of `manage.py dumpdata`.
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
        told += [left | {"outcome": "left out"} for left in report["left_out"]]
        if session.output.is_table:
            session.output.items(told, COLUMNS, empty="there is nothing to change")
        else:
            session.output.item(report, lambda _report: None)
    counts = ", ".join(f"{number} {outcome}" for outcome, number in report["counts"].items())
    if report["left_out"]:
        counts += f", {len(report['left_out'])} left out"
    message(f"{counts}{' (nothing was changed: a dry run)' if dry_run else ''}")
    return ExitCode.FAILED if report["counts"]["refused"] else ExitCode.OK


def _keep(file: Path, text: str) -> None:
    """Write a file for its owner alone: it names everybody, and may hold what they prove themselves with.

    Whatever interrupts it, the document of before or this one is there, whole. What is no file is written to as it is.
    """
    if file.exists() and not file.is_file():
        file.write_text(text, encoding="utf-8")
    elif not file.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    else:
        write_secret(file.resolve(), text)


def _parts(document: Any) -> Iterator[Any]:
    """Yield the document with some of its people at a time: each request is answered soon."""
    people = document.get("users") if isinstance(document, dict) else None
    if not isinstance(people, list) or len(people) <= PEOPLE_AT_ONCE:
        yield document
        return
    # Of a realm, some users are the accounts of clients, which every part names: their roles are the clients'.
    of_clients = [user for user in people if _is_of_client(user)]
    people = [user for user in people if not _is_of_client(user)]
    for first in range(0, len(people), PEOPLE_AT_ONCE):
        message(f"{first} of {len(people)} people")
        yield document | {"users": people[first : first + PEOPLE_AT_ONCE] + of_clients}


def _is_of_client(user: Any) -> bool:
    return isinstance(user, dict) and user.get("serviceAccountClientId") is not None


def _merged(report: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Add another part's report; what is not about people is the same in each, and told once."""
    if not report:
        return more
    people = [item for item in more["items"] if item["kind"] == "user"]
    counts = dict(report["counts"])
    for item in people:
        counts[item["outcome"]] += 1
    left_out = report["left_out"] + [left for left in more["left_out"] if left not in report["left_out"]]
    return report | {"counts": counts, "items": report["items"] + people, "left_out": left_out}


def _read(file: Path) -> Any:
    try:
        document = json.loads(file.read_text())
        is_sealed = sealed_document.is_sealed(document)
        return json.loads(sealed_document.unseal(document, sealed_document.passphrase())) if is_sealed else document
    except FileNotFoundError as error:
        raise not_found(f"there is no file {file}") from error
    except (OSError, ValueError) as error:
        raise usage(f"{file} must be a JSON document: {error}") from error
