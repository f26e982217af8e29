"""`evs api`: one request to a service of the product, as whoever acts in the context."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from cyclopts import Parameter

from cli_proj.api import Service
from cli_proj.commands.admin import administering
from cli_proj.failure import usage
from cli_proj.options import Options
from cli_proj.output import Output
from cli_proj.printing import write
from cli_proj.run_input import read_pair, read_value
from cli_proj.session import connected

ADMIN = "/v1/admin/"
OF_AUTH_SERVICE = ("/v1/access-requests",)

type Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


async def api(
    method: Method,
    path: str,
    /,
    *,
    input: Annotated[str | None, Parameter(name=("--input", "-i"))] = None,  # noqa: A002 - the option's name
    header: tuple[str, ...] = (),
    options: Options = Options(),  # noqa: B008
) -> None:
    """Send one request to the REST API, signed in, and print what comes back as JSON.

    Paths under /v1/admin/ are the AuthService's and take an administrator, nearly all others are the AppService's; see
    /openapi.json of either.

    Parameters
    ----------
    method
        GET, POST, PUT, PATCH or DELETE.
    path
        Where to, with its query: /v1/runs?status=failed
    input
        The body: JSON, @file, or @- for standard input.
    header
        A header, name=value, such as prefer=wait=20 (answers are awaited for 30 s). May be repeated.
    """
    if not path.startswith("/v1/"):
        raise usage(f"PATH must begin with /v1/, got {path!r}")
    place, _, query = path.partition("?")
    if {".", ".."}.intersection(place.split("/")):
        # RFC 3986 section 5.2.4: on its way it would be taken out, and the path be that of something else.
        raise usage(f"PATH must not have a segment . or .., got {path!r}")
    body = None if input is None else read_value(input, option="--input")
    headers = dict(read_pair(text, option="--header") for text in header)
    async with _service_of(place, options) as (service, output):
        given = parse_qs(query, keep_blank_values=True)
        answer = await service.call(method, place, query=given, body=body, headers=headers)
        if answer is not None:
            output.item(answer, _show)


@asynccontextmanager
async def _service_of(path: str, options: Options) -> AsyncIterator[tuple[Service, Output]]:
    if path.startswith(ADMIN):
        async with administering(options) as administration:
            yield administration.auth, administration.output
    else:
        async with connected(options) as session:
            yield session.auth if path.startswith(OF_AUTH_SERVICE) else session.app, session.output


def _show(answer: Any) -> None:
    write(json.dumps(answer, ensure_ascii=False, indent=2) + "\n")
