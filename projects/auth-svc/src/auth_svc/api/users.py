"""`/v1/admin/users`: people, what they may do, and whether they may sign in."""

import secrets

from fastapi import APIRouter, Depends, Request
from pydantic import SecretStr

from auth_svc import accounts
from auth_svc.accounts import Account, AccountRejected, NewAccount
from auth_svc.api.administrator import PAGE, Administrator, Cursor, Limit, Named, administrator, invalid
from auth_svc.api.views import Page, PasswordBody, RolesBody, UserBody, UserView
from auth_svc.passwords import PasswordRejected, PasswordsBusy
from auth_svc.service import AuthService, service_of
from lib_auth.principal import ADMIN
from lib_events.problem import Problem

router = APIRouter(prefix="/v1/admin", tags=["users"], dependencies=[Depends(administrator)])


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
        raise invalid(error.field, error.detail) from error
    return UserView.of(account, generated)


@router.get("/users/{user}")
async def show_user(request: Request, user: Named) -> UserView:
    """Show a user, by id or user name."""
    return UserView.of(await find(service_of(request), user))


@router.post("/users/{user}/reset-password")
async def reset_password(request: Request, user: Named, body: PasswordBody, by: Administrator) -> UserView:
    """Set a new password; everything the user was signed in to ends."""
    service = service_of(request)
    account = await find(service, user)
    password, generated = _password(body.password)
    kept = await _hash(service, password)
    actor = service.actor(request, by.subject)
    return UserView.of(await service.database.transact(accounts.set_password, account.id, kept, actor), generated)


@router.post("/users/{user}/disable")
async def disable_user(request: Request, user: Named, by: Administrator) -> UserView:
    """Stop a user from signing in and end everything they are signed in to."""
    service = service_of(request)
    account = await find(service, user)
    if account.id == by.subject:
        raise Problem(409, "own-account", detail="you cannot disable yourself; ask another administrator")
    return UserView.of(
        await service.database.transact(accounts.disable, account.id, service.actor(request, by.subject))
    )


@router.post("/users/{user}/enable")
async def enable_user(request: Request, user: Named, by: Administrator) -> UserView:
    """Let a disabled user sign in again."""
    service = service_of(request)
    account = await find(service, user)
    return UserView.of(await service.database.transact(accounts.enable, account.id, service.actor(request, by.subject)))


@router.put("/users/{user}/roles")
async def set_roles(request: Request, user: Named, body: RolesBody, by: Administrator) -> UserView:
    """Set what a user may do; what is taken away ends at once."""
    service = service_of(request)
    account = await find(service, user)
    if account.id == by.subject and ADMIN not in body.roles:
        raise Problem(409, "own-account", detail="you cannot take the role admin from yourself")
    actor = service.actor(request, by.subject)
    try:
        changed = await service.database.transact(accounts.set_roles, account.id, frozenset(body.roles), actor)
    except AccountRejected as error:
        raise invalid(error.field, error.detail) from error
    return UserView.of(changed)


async def find(service: AuthService, user: str) -> Account:
    """Return the user of an id or user name; raises `Problem`."""
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
        raise invalid("password", str(error)) from error
    except PasswordsBusy as error:
        headers = {"retry-after": str(error.retry_after)}
        raise Problem(503, "busy", detail="too many passwords at once; try again", headers=headers) from error
