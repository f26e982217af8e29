"""`/login/step-up`: a session becomes stronger by the factor it lacks, and nothing is asked for twice."""

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import opaque
from auth_svc.factors import held
from auth_svc.proving import sign_ins
from auth_svc.proving.assurance import LEVELS, TWO_FACTORS, reaches
from auth_svc.proving.sign_ins import SignIn
from auth_svc.service import service_of
from auth_svc.site.browser import (
    PageRefused,
    Visitor,
    give_step_cookie,
    redirect,
    set_up_url,
    step_up_url,
    visitor_of,
    way_on,
)
from auth_svc.site.new_session import SECOND_STEP


async def step_up(request: Request) -> Response:
    """Begin the second step for a session that has had its first."""
    service, visitor = service_of(request), await visitor_of(request)
    target, level = way_on(request.query_params.get("next")), request.query_params.get("level")
    if visitor.session is None or visitor.account is None:
        return redirect("/login")
    if level not in LEVELS:
        raise PageRefused(400, "That request cannot be read", "Begin again at the application you came from.")
    if reaches(visitor.session.methods, level):
        return redirect(target)
    cookie = opaque.new_secret()
    before = visitor.session
    sign_in = SignIn(opaque.digest(cookie), before.user_id, before.methods, target, before.id, level)
    await service.database.transact(sign_ins.begin, sign_in, service.clock.micros())
    response = redirect(SECOND_STEP)
    give_step_cookie(response, service.issuer, cookie)
    return response


async def missing_factor(request: Request, visitor: Visitor, target: str) -> Response | None:
    """Send who has a second factor that this session has not seen to prove it; None: nothing is missing.

    Whatever is grave asks for this first: who has stolen the password may be in a session from before the factor.
    """
    account, session = visitor.account, visitor.session
    if account is None or session is None:
        return None
    is_missing = await service_of(request).database.read(held.lacks_factor, account.id, session.methods)
    return redirect(step_up_url(target, TWO_FACTORS)) if is_missing else None


async def before_connecting(request: Request, visitor: Visitor, target: str) -> Response | None:
    """Send who has, or by a role of theirs must have, a second factor to prove or set it up; None: nothing is missing.

    What they allow then lasts longer than the session, and may reach further.
    """
    if (first := await missing_factor(request, visitor, target)) is not None:
        return first
    account, session = visitor.account, visitor.session
    if account is None or session is None or reaches(session.methods, TWO_FACTORS):
        return None
    return redirect(set_up_url(target)) if service_of(request).issuer.needs_two_factors(account) else None
