"""`/v1/admin/users`: people, what they may do, and whether they may sign in."""

import secrets

from fastapi import APIRouter, Depends, Request
from pydantic import SecretStr

from auth_svc.api.administrator import PAGE, Administrator, Cursor, Limit, Named, Text, administrator, invalid
from auth_svc.api.views import Page, PasswordBody, RolesBody, UserBody, UserChanges, UserView
from auth_svc.audit import Actor
from auth_svc.people import account_changes, accounts, administrators, own_data
from auth_svc.people.account_changes import Search, State
from auth_svc.people.accounts import Account, AccountUnknown, NewAccount
from auth_svc.people.passwords import PasswordRejected, PasswordsBusy
from auth_svc.people.user_names import folded
from auth_svc.rights import groups, roles
from auth_svc.service import AuthService, service_of
from lib_events.database import Connection
from lib_events.problem import Problem

router = APIRouter(prefix="/v1/admin", tags=["users"], dependencies=[Depends(administrator)])


@router.get("/users")
async def list_users(
    request: Request,
    *,
    q: Text = None,
    role: Text = None,
    group: Text = None,
    state: State | None = None,
    cursor: Cursor = None,
    limit: Limit = PAGE,
) -> Page[UserView]:
    """List users by user name: those with `q` in their name or e-mail address, a role, in a group, in a state."""
    search = Search(text=q, role=role, group=group, state=state)
    service = service_of(request)
    found = await service.database.read(account_changes.page, search, cursor, limit)
    more = folded(found[-1].username) if len(found) == limit else None
    return Page(items=[UserView.of(account, service.issuer.roles) for account in found], next_cursor=more)


@router.post("/users", status_code=201)
async def create_user(request: Request, body: UserBody, by: Administrator) -> UserView:
    """Make a user."""
    service = service_of(request)
    password, generated = _password(body.password)
    kept = await _hash(service, password, body.username, body.email or "")
    new = NewAccount(body.username, kept, body.email, frozenset(body.roles), body.name)
    account = await by.commit(_register, new)
    return UserView.of(account, service.issuer.roles, generated)


@router.get("/users/{user}")
async def show_user(request: Request, user: Named) -> UserView:
    """Show a user, by id or user name."""
    service = service_of(request)
    return UserView.of(await find_user(service, user), service.issuer.roles)


@router.patch("/users/{user}")
async def change_user(request: Request, user: Named, body: UserChanges, by: Administrator) -> UserView:
    """Set a user's name or e-mail address."""
    service = service_of(request)
    account = await find_user(service, user)
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    return UserView.of(await by.commit(account_changes.edit, account.id, changes), service.issuer.roles)


@router.delete("/users/{user}", status_code=204)
async def delete_user(request: Request, user: Named, by: Administrator) -> None:
    """Delete a user and everything that is theirs; what they were signed in to ends."""
    service = service_of(request)
    account = await find_user(service, user)
    if account.id == by.subject:
        raise Problem(409, "own-account", detail="you cannot delete yourself; ask another administrator")
    await by.commit(own_data.delete_account, account.id)


@router.post("/users/{user}/reset-password")
async def reset_password(request: Request, user: Named, body: PasswordBody, by: Administrator) -> UserView:
    """Set a new password; everything the user was signed in to ends."""
    service = service_of(request)
    account = await find_user(service, user)
    password, generated = _password(body.password)
    kept = await _hash(service, password, *account.names)
    changed = await by.commit(account_changes.reset_password, account.id, kept)
    return UserView.of(changed, service.issuer.roles, generated)


@router.post("/users/{user}/disable")
async def disable_user(request: Request, user: Named, by: Administrator) -> UserView:
    """Stop a user from signing in and end everything they are signed in to."""
    service = service_of(request)
    account = await find_user(service, user)
    if account.id == by.subject:
        raise Problem(409, "own-account", detail="you cannot disable yourself; ask another administrator")
    return UserView.of(await by.commit(_disable, account.id), service.issuer.roles)


@router.post("/users/{user}/enable")
async def enable_user(request: Request, user: Named, by: Administrator) -> UserView:
    """Let a disabled user sign in again."""
    service = service_of(request)
    account = await find_user(service, user)
    return UserView.of(await by.commit(accounts.enable, account.id), service.issuer.roles)


@router.put("/users/{user}/roles")
async def set_roles(request: Request, user: Named, body: RolesBody, by: Administrator) -> UserView:
    """Set what a user may do; what is taken away ends at once."""
    service = service_of(request)
    account = await find_user(service, user)
    return UserView.of(await by.commit(_set_roles, account.id, frozenset(body.roles)), service.issuer.roles)


def _register(connection: Connection, new: NewAccount, actor: Actor) -> Account:
    account = accounts.register(connection, new, actor)
    roles.check_known(connection, account.roles)
    return account


def _disable(connection: Connection, user_id: str, actor: Actor) -> Account:
    with administrators.keeping_one(connection):
        return accounts.disable(connection, user_id, actor)


def _set_roles(connection: Connection, user_id: str, wanted: frozenset[str], actor: Actor) -> Account:
    with administrators.keeping_one(connection):
        before = accounts.existing(connection, user_id)
        roles.check_known(connection, wanted - before.roles)
        account = accounts.set_roles(connection, user_id, wanted, actor)
    groups.keep_own_access(connection, actor)
    return account


async def find_user(service: AuthService, user: str) -> Account:
    """Return a user by id or user name; raises `AccountUnknown`."""
    account = await service.database.read(accounts.find, user)
    account = account or await service.database.read(accounts.find_by_username, user)
    if account is None:
        raise AccountUnknown(f"there is no user {user!r}; list them with: evs admin user list")
    return account


def _password(given: SecretStr | None) -> tuple[str, str | None]:
    """Return the password to set, and the same once more if it was made here and has to be told."""
    if given is not None:
        return given.get_secret_value(), None
    generated = secrets.token_urlsafe(12)
    return generated, generated


async def _hash(service: AuthService, password: str, *context: str) -> str:
    try:
        return await service.passwords.hash(password, context=context)
    except PasswordRejected as error:
        raise invalid("password", str(error)) from error
    except PasswordsBusy as error:
        headers = {"retry-after": str(error.retry_after)}
        raise Problem(503, "busy", detail="too many passwords at once; try again", headers=headers) from error
