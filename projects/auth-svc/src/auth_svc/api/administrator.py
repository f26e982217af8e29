"""Who may use `/v1/admin`, how long, and the parameters its resources share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Query, Request
from sqlalchemy.exc import IntegrityError
from starlette.responses import Response

from auth_svc.api.views import WITHOUT_NUL
from auth_svc.audit import Actor
from auth_svc.clients.client import ClientRejected
from auth_svc.clients.clients import ClientUnknown
from auth_svc.endpoints.oauth_http import NO_STORE
from auth_svc.people import administrators
from auth_svc.people.accounts import AccountRejected, AccountUnknown
from auth_svc.people.administrators import AdministersNoMore, LastAdministrator
from auth_svc.protocol.own_tokens import is_revoked
from auth_svc.rights.changes import ChangeConflicts, ChangeRejected, NotThere
from auth_svc.service import service_of
from lib_auth.principal import ADMIN, Principal
from lib_events.database import Connection
from lib_events.problem import REQUEST_PREFIX, Problem, problem_response, request_id

PAGE = 100


@dataclass(frozen=True, slots=True)
class Administration:
    """One call of somebody who administers."""

    request: Request
    principal: Principal

    @property
    def subject(self) -> str:
        """Who it is."""
        return self.principal.subject

    @property
    def actor(self) -> Actor:
        """They, now."""
        return service_of(self.request).actor(self.request, self.subject)

    async def commit[*A, R](self, act: Callable[[Connection, *A, Actor], R], *args: *A) -> R:
        """Let `act` happen in a transaction, unless they were put out since they were let in.

        Hashing takes a while, and so may what the database waits for. Raises the `Problem` 403.
        """
        database = service_of(self.request).database
        try:
            return await database.transact(_confirmed, self.principal, act, args, self.actor)
        except AdministersNoMore as error:
            text = "you were put out, or administer no more, since you asked; what was not done by then is left undone"
            raise Problem(403, "administers-no-more", detail=text) from error


def _confirmed[*A, R](
    connection: Connection,
    principal: Principal,
    act: Callable[[Connection, *A, Actor], R],
    args: tuple[*A],
    actor: Actor,
) -> R:
    if is_revoked(connection, principal):
        raise AdministersNoMore
    done = act(connection, *args, actor)
    administrators.confirm(connection, principal.subject)
    return done


async def administrator(request: Request, response: Response) -> Administration:
    """Let in whoever has both the scope and the role `admin`; what they are answered is for nobody's cache."""
    response.headers.update(NO_STORE)
    guard = service_of(request).admin_guard
    principal = await guard.authenticate(request)
    guard.authorise(principal, scope=ADMIN, role=ADMIN)
    return Administration(request, principal)


Limit = Annotated[int, Query(ge=1, le=500)]
Named = Annotated[str, Path(pattern=WITHOUT_NUL)]
Cursor = Annotated[str | None, Query(pattern=WITHOUT_NUL)]
Text = Annotated[str | None, Query(max_length=254, pattern=WITHOUT_NUL)]
Line = Annotated[int, Query(ge=1, lt=2**63)]
Administrator = Annotated[Administration, Depends(administrator)]


def invalid(field: str, detail: str) -> Problem:
    """The refusal of an input whose `field` is at fault."""
    errors = [{"pointer": f"/{field}", "detail": detail}]
    return Problem(422, "invalid-input", "The input is not valid", f"/{field}: {detail}", errors=errors)


async def change_refused(request: Request, error: Exception) -> Response:
    """Exception handler for what a change can meet."""
    return problem_response(_problem_of(error), REQUEST_PREFIX + request_id(request))


def install_change_handlers(app: FastAPI) -> None:
    """Make a problem document of each error of `auth_svc.rights.changes` and of accounts and clients."""
    about_people = (AccountRejected, AccountUnknown, LastAdministrator)
    about_clients = (ClientRejected, ClientUnknown)
    for kind in (*about_people, *about_clients, ChangeRejected, NotThere, ChangeConflicts, IntegrityError):
        app.add_exception_handler(kind, change_refused)


def _problem_of(error: Exception) -> Problem:
    match error:
        case ChangeRejected() | AccountRejected() | ClientRejected():
            return invalid(error.field, error.detail)
        case NotThere():
            return Problem(404, f"{error.kind}-unknown", detail=str(error))
        case AccountUnknown() | ClientUnknown():
            kind = "user" if isinstance(error, AccountUnknown) else "client"
            return Problem(404, f"{kind}-unknown", detail=str(error))
        case LastAdministrator():
            return Problem(409, "last-administrator", detail="somebody else must administer first")
        case ChangeConflicts():
            return Problem(409, error.reason, detail=str(error))
        case IntegrityError():
            # A check before passed, so somebody was faster; the database let one of the two through.
            text = "somebody else changed this at the same moment; look at it and try again"
            return Problem(409, "changed-meanwhile", detail=text)
    raise error
