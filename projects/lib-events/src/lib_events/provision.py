"""Gives each service its own PostgreSQL schema and role, so that one cannot read the other's tables.

`python -m lib_events.provision --data DIR` reads `EVS_DATABASE_URL`, prints one JSON object (service → URL) and
keeps the generated passwords in DIR/secrets. Doing it again changes nothing.
"""

import argparse
import asyncio
import json
import logging
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import asyncpg

from lib_events.adapters.postgresql_errors import DRIVER_ERRORS
from lib_events.secret_file import create_secret
from lib_events.settings import Settings
from lib_events.telemetry import configure_logging

logger = logging.getLogger(__name__)

ROLES = {"auth-svc": "evs_auth", "app-svc": "evs_app"}


class ProvisionFailed(Exception):
    """The schemas cannot be made; the text says what to do."""


async def provision(url: str, *, data: Path, roles: Mapping[str, str] = ROLES) -> dict[str, str]:
    """Make schema and role for every service and return each one's URL; raises `ProvisionFailed`.

    Where the given user may not create roles, or a role is somebody else's already, the services share the
    given user and keep to their schemas.
    """
    try:
        connection = await asyncpg.connect(_without_schema(url), timeout=10)
    except DRIVER_ERRORS as error:
        host = urlsplit(url).hostname or "the given socket"
        raise ProvisionFailed(f"PostgreSQL at {host} cannot be used: {error}; check EVS_DATABASE_URL") from error
    try:
        return {service: await _provision_one(connection, url, role, data) for service, role in roles.items()}
    except asyncpg.InsufficientPrivilegeError as error:
        raise ProvisionFailed(
            f"the user of EVS_DATABASE_URL must be allowed to create schemas: {error}; "
            f"create {' and '.join(roles.values())} and set EVS_AUTH_DATABASE_URL and EVS_APP_DATABASE_URL"
        ) from error
    finally:
        await connection.close()


async def _provision_one(connection: asyncpg.Connection, url: str, role: str, data: Path) -> str:
    secret_file = data / "secrets" / f"postgresql-{role}.secret"
    exists = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
    may_create = await connection.fetchval(
        "SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user"
    )
    async with connection.transaction():
        if (exists and not secret_file.exists()) or not may_create:
            logger.warning("%s has no role of its own here: it shares the user of EVS_DATABASE_URL", role)
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {role}")
            return _with(url, role, user=None, password="")
        password = create_secret(secret_file, lambda: secrets.token_urlsafe(32))
        if not exists:
            await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        # Somebody may create a schema for a role only as one of its members.
        await connection.execute(f"GRANT {role} TO CURRENT_USER")
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {role} AUTHORIZATION {role}")
    return _with(url, role, user=role, password=password)


def _without_schema(url: str) -> str:
    parts = urlsplit(url)
    options = [(name, value) for name, value in parse_qsl(parts.query) if name != "schema"]
    return urlunsplit(parts._replace(query=urlencode(options)))


def _with(url: str, schema: str, *, user: str | None, password: str) -> str:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query)) | {"schema": schema}
    netloc = parts.netloc
    if user is not None:
        netloc = f"{user}:{quote(password)}@{parts.netloc.rpartition('@')[2]}"
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(options)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the URLs of all services."""
    parser = argparse.ArgumentParser(prog="python -m lib_events.provision", description="Prepare PostgreSQL.")
    parser.add_argument("--data", type=Path, required=True, help="folder that keeps the generated passwords")
    options = parser.parse_args(arguments)
    configure_logging("provision")
    settings = Settings(data=options.data)
    if settings.database_url is None:
        sys.exit("EVS_DATABASE_URL must be set to postgresql://…; without it each service has a SQLite file")
    settings.prepare_data()
    try:
        urls = asyncio.run(provision(settings.database_url, data=settings.data))
    except ProvisionFailed as error:
        sys.exit(str(error))
    print(json.dumps(urls))  # noqa: T201 - the interface to whoever started us


if __name__ == "__main__":
    main()
