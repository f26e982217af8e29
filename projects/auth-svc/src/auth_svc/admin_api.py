"""`/v1/admin`: users, clients and the audit, for administrators with a token made for just this."""

import json
import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import SecretStr

from auth_svc import accounts, audit, clients, opaque
from auth_svc.accounts import Account, AccountRejected, NewAccount
from auth_svc.admin_views import (
    WITHOUT_NUL,
    AuditLine,
    ClientBody,
    ClientView,
    Page,
    PasswordBody,
    RolesBody,
    UserBody,
    UserView,
)
from auth_svc.clients import Client, ClientRejected
from auth_svc.passwords import PasswordRejected, PasswordsBusy
from auth_svc.service import AuthService, service_of
from lib_auth.principal import ADMIN, Principal
from lib_events.clock import to_datetime
from lib_events.problem import Problem

PAGE = 100


async def administrator(request: Request) -> Principal:
    """Let in whoever has both the scope and the role `admin`."""
    guard = service_of(request).admin_guard
    principal = await guard.authenticate(request)
    guard.authorise(principal, scope=ADMIN, role=ADMIN)
    return principal


Limit = Annotated[int, Query(ge=1, le=500)]
Named = Annotated[str, Path(pattern=WITHOUT_NUL)]
Cursor = Annotated[str | None, Query(pattern=WITHOUT_NUL)]
Line = Annotated[int, Query(ge=1, lt=2**63)]
Administrator = Annotated[Principal, Depends(administrator)]
router = APIRouter(prefix="/v1/admin", tags=["administration"], dependencies=[Depends(administrator)])


@router.get("/users")
async def list_users(request: Request, cursor: Cursor = None, limit: Limit = PAGE) -> Page[UserView]:
    """List users by user name."""
    found = await service_of(request).database.read(accounts.page, cursor, limit)
    more = accounts.username_key(found[-1].username) if len(found) == limit else None
    return Page(items=[UserView.of(account) for account in found], next_cursor=more)


@router.post("/users", status_code=201)
async def create_user(request: Request, body: UserBody, by: Administrator) -> UserView:
    """Make a user."""
    service = service_of(request)
    password, generated = _password(body.password)
    try:
        kept = await _hash(service, password)
        new = NewAccount(body.username, kept, body.email, frozenset(body.roles))
        account = await service.database.transact(accounts.register, new, service.actor(request, by.subject))
    except AccountRejected as error:
        raise _invalid(error.field, error.detail) from error
    return UserView.of(account, generated)


@router.get("/users/{user}")
async def show_user(request: Request, user: Named) -> UserView:
    """Show a user, by id or user name."""
    return UserView.of(await _find(service_of(request), user))


@router.post("/users/{user}/reset-password")
async def reset_password(request: Request, user: Named, body: PasswordBody, by: Administrator) -> UserView:
    """Set a new password; everything the user was signed in to ends."""
    service = service_of(request)
    account = await _find(service, user)
    password, generated = _password(body.password)
    kept = await _hash(service, password)
    actor = service.actor(request, by.subject)
    return UserView.of(await service.database.transact(accounts.set_password, account.id, kept, actor), generated)


@router.post("/users/{user}/disable")
async def disable_user(request: Request, user: Named, by: Administrator) -> UserView:
    """Stop a user from signing in and end everything they are signed in to."""
    service = service_of(request)
    account = await _find(service, user)
    if account.id == by.subject:
        raise Problem(409, "own-account", detail="you cannot disable yourself; ask another administrator")
    return UserView.of(
        await service.database.transact(accounts.disable, account.id, service.actor(request, by.subject))
    )


@router.post("/users/{user}/enable")
async def enable_user(request: Request, user: Named, by: Administrator) -> UserView:
    """Let a disabled user sign in again."""
    service = service_of(request)
    account = await _find(service, user)
    return UserView.of(await service.database.transact(accounts.enable, account.id, service.actor(request, by.subject)))


@router.put("/users/{user}/roles")
async def set_roles(request: Request, user: Named, body: RolesBody, by: Administrator) -> UserView:
    """Set what a user may do; what is taken away ends at once."""
    service = service_of(request)
    account = await _find(service, user)
    if account.id == by.subject and ADMIN not in body.roles:
        raise Problem(409, "own-account", detail="you cannot take the role admin from yourself")
    actor = service.actor(request, by.subject)
    try:
        changed = await service.database.transact(accounts.set_roles, account.id, frozenset(body.roles), actor)
    except AccountRejected as error:
        raise _invalid(error.field, error.detail) from error
    return UserView.of(changed)


@router.get("/clients")
async def list_clients(request: Request, cursor: Cursor = None, limit: Limit = PAGE) -> Page[ClientView]:
    """List clients by id."""
    found = await service_of(request).database.read(clients.page, cursor, limit)
    more = found[-1].id if len(found) == limit else None
    return Page(items=[ClientView.of(client) for client in found], next_cursor=more)


@router.post("/clients", status_code=201)
async def create_client(request: Request, body: ClientBody, by: Administrator) -> ClientView:
    """Make a client; its secret is in this answer and nowhere else."""
    service = service_of(request)
    secret = None if body.public else opaque.new_secret()
    actor = service.actor(request, by.subject)
    client = Client(
        id=body.id,
        name=body.name,
        secret_digest=opaque.digest(secret) if secret else None,
        redirect_uris=tuple(body.redirect_uris),
        post_logout_redirect_uris=tuple(body.post_logout_redirect_uris),
        grant_types=tuple(body.grant_types),
        scopes=frozenset(body.scopes),
        roles=frozenset(body.roles),
        access_token_seconds=body.access_token_seconds,
        created_at=actor.at,
    )
    try:
        return ClientView.of(await service.database.transact(clients.register, client, actor), secret)
    except ClientRejected as error:
        raise _invalid(error.field, error.detail) from error


@router.get("/audit")
async def list_audit(request: Request, cursor: Line | None = None, limit: Limit = PAGE) -> Page[AuditLine]:
    """Show what happened, newest first."""
    rows = await service_of(request).database.read(audit.page, cursor, limit)
    lines = [
        AuditLine(
            id=row.id,
            at=to_datetime(row.at).isoformat(),
            who=row.who,
            what=row.what,
            about=row.about,
            address=row.address,
            detail=json.loads(row.detail),
        )
        for row in rows
    ]
    return Page(items=lines, next_cursor=str(lines[-1].id) if len(lines) == limit else None)


async def _find(service: AuthService, user: str) -> Account:
    account = await service.database.read(accounts.find, user)
    account = account or await service.database.read(accounts.find_by_username, user)
    if account is None:
        raise Problem(404, "user-unknown", detail=f"there is no user {user!r}; list them with: evs admin user list")
    return account


def _password(given: SecretStr | None) -> tuple[str, str | None]:
    """Return the password to set, and the same once more if it was made here and has to be told."""
    if given is not None:
        return given.get_secret_value(), None
    generated = secrets.token_urlsafe(12)
    return generated, generated


async def _hash(service: AuthService, password: str) -> str:
    try:
        return await service.passwords.hash(password)
    except PasswordRejected as error:
        raise _invalid("password", str(error)) from error
    except PasswordsBusy as error:
        headers = {"retry-after": str(error.retry_after)}
        raise Problem(503, "busy", detail="too many passwords at once; try again", headers=headers) from error


def _invalid(field: str, detail: str) -> Problem:
    errors = [{"pointer": f"/{field}", "detail": detail}]
    return Problem(422, "invalid-input", "The input is not valid", f"/{field}: {detail}", errors=errors)
