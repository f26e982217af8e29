"""Passkeys in the browser: added on `/account/security`, asked for at `/login` and as a second step."""

from dataclasses import replace
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.factors import passkeys
from auth_svc.factors.passkeys import ADDING, SECOND_STEP, SIGNING_IN, Answer, PasskeyRejected
from auth_svc.people import accounts
from auth_svc.people.accounts import Account
from auth_svc.proving.assurance import KEY, PRESENT, VERIFIED_PASSKEY
from auth_svc.rate_limits import network_of
from auth_svc.service import act_as, address_of, service_of
from auth_svc.site import security, sign_in
from auth_svc.site.browser import (
    read_page_form,
    redirect,
    remember_browser,
    sign_in_browser,
    step_cookie_of,
    visitor_of,
    way_on,
)
from auth_svc.site.ceremonies import ceremony_of
from auth_svc.site.new_session import NewSession, make_session
from auth_svc.site.second_factor import Proof, prove
from auth_svc.site.security import ONLY_WAY_IN, Change, change, first_codes, show, show_added
from auth_svc.upstreams import providers
from lib_events.database import Connection

REFUSED = "That passkey was not accepted. Try again, or sign in another way."
NOT_ADDED = "The passkey was not added. Try again."


async def sign_in_with_passkey(request: Request) -> Response:
    """Start a session for whoever holds a passkey and has unlocked it: that is two factors in one."""
    service, visitor = service_of(request), await visitor_of(request)
    form = await read_page_form(request, visitor)
    target, network = way_on(form.get("next")), network_of(address_of(request))
    answer = Answer(ceremony_of(service, SIGNING_IN, visitor.cookie), form.get("credential", ""))
    service.limits.passkeys.begin(network)
    new = NewSession.of(request, visitor)
    sign_in_now = partial(_sign_in, answer, new)
    with service.limits.passkeys.unless_away(network):
        user_id = await service.database.transact(sign_in_now, service.actor(request))
    if user_id is None:
        return await sign_in.show(request, visitor, target, error=REFUSED, status=401)
    service.limits.passkeys.forgive(network)
    response = redirect(target)
    sign_in_browser(response, service.issuer, new.cookie)
    remember_browser(request, response, user_id)
    return response


async def second_step(request: Request) -> Response:
    """Take a passkey as the second step."""
    service, visitor = service_of(request), await visitor_of(request)
    form = await read_page_form(request, visitor)
    answer = Answer(ceremony_of(service, SECOND_STEP, step_cookie_of(request)), form.get("credential", ""))
    return await prove(request, visitor, Proof(partial(_check, answer), (KEY, PRESENT)), wrong=REFUSED)


@change
async def add(wanted: Change) -> Response:
    """Keep a new passkey."""
    ceremony = ceremony_of(wanted.service, ADDING, wanted.visitor.cookie)
    answer, name = Answer(ceremony, wanted.form.get("credential", "")), wanted.form.get("name", "")
    wanted, codes = await wanted.add_factor(partial(_add, answer, name), KEY, PRESENT)
    if codes is None:
        return await show(wanted.request, wanted.visitor, wanted.account, target=wanted.target, error=NOT_ADDED)
    return await show_added(wanted, codes, done="The passkey is added.")


@change
async def remove(wanted: Change) -> Response:
    """Take a passkey away, unless it is the only way in that is left."""
    passkey = wanted.form.get("passkey", "")
    if await wanted.commit(partial(_remove, passkey_id=passkey)):
        return redirect(security.PATH)
    return await show(wanted.request, wanted.visitor, wanted.account, error=ONLY_WAY_IN)


def _remove(connection: Connection, account: Account, actor: Actor, *, passkey_id: str) -> bool:
    others = [passkey for passkey in passkeys.of_user(connection, account.id) if passkey.id != passkey_id]
    if account.password_hash is None and not others and not providers.linked_to(connection, account.id):
        return False
    passkeys.remove(connection, account, actor, passkey_id=passkey_id)
    return True


def _sign_in(answer: Answer, new: NewSession, connection: Connection, actor: Actor) -> str | None:
    """Return whom the browser is signed in as; None when it is not."""
    account = _holder(connection, answer)
    if account is None or not _is_right(connection, answer, account, actor, alone=True):
        audit.record(connection, actor, "session.refused", about=account.id if account else None)
        return None
    act_as(account.id)
    make_session(connection, account, VERIFIED_PASSKEY, new, replace(actor, who=account.id))
    return account.id


def _holder(connection: Connection, answer: Answer) -> Account | None:
    """Return whose passkey it says it is, as the account stays until this transaction ends."""
    try:
        named = passkeys.find(connection, answer)
    except PasskeyRejected:
        return None
    return accounts.enabled(accounts.lock(connection, named.user_id)) if named else None


def _is_right(connection: Connection, answer: Answer, account: Account, actor: Actor, *, alone: bool) -> bool:
    try:
        passkey = passkeys.find(connection, answer)
        if passkey is None or passkey.user_id != account.id:
            return False
        return passkeys.check(connection, passkey, answer, actor, alone=alone)
    except PasskeyRejected:
        return False


def _check(answer: Answer, connection: Connection, account: Account, actor: Actor) -> bool:
    return _is_right(connection, answer, account, actor, alone=False)


def _add(answer: Answer, name: str, connection: Connection, account: Account, actor: Actor) -> list[str] | None:
    """Return the recovery codes to show, or None for what is no passkey; its challenge is used up all the same."""
    try:
        passkeys.add(connection, account, answer, name, actor)
    except PasskeyRejected:
        return None
    return first_codes(connection, account, actor)
