"""What a page asks a browser for a passkey with."""

from starlette.requests import Request

from auth_svc.factors import passkeys
from auth_svc.factors.passkeys import ADDING, SECOND_STEP, SIGNING_IN, Ceremony, RelyingParty
from auth_svc.people.accounts import Account
from auth_svc.service import AuthService, service_of
from auth_svc.site.browser import PageRefused, Visitor, step_cookie_of


def offers_passkeys(service: AuthService) -> bool:
    """Whether browsers make passkeys for this service."""
    return RelyingParty.of(service.issuer.url) is not None


def ceremony_of(service: AuthService, purpose: str, cookie: str | None) -> Ceremony:
    """What passkeys are asked with; raises `PageRefused` where browsers make none."""
    party = RelyingParty.of(service.issuer.url)
    if party is None:
        raise PageRefused(404, "No passkeys here", "This service is reached by an address, and passkeys need a name.")
    return Ceremony(party, service.sealing_key, purpose, cookie or "")


async def options_to_add(request: Request, visitor: Visitor, account: Account) -> str | None:
    """What a new passkey is made with; None where browsers make none."""
    service = service_of(request)
    if not offers_passkeys(service):
        return None
    held = await service.database.read(passkeys.of_user, account.id)
    ceremony = ceremony_of(service, ADDING, visitor.cookie)
    return passkeys.creation_options(ceremony, account, held, service.clock.micros())


def options_to_sign_in(request: Request, visitor: Visitor) -> str | None:
    """What any passkey of this browser is asked with; None where there can be none."""
    service = service_of(request)
    if not offers_passkeys(service):
        return None
    return passkeys.request_options(ceremony_of(service, SIGNING_IN, visitor.cookie), [], service.clock.micros())


async def options_for_second_step(request: Request, user_id: str) -> str | None:
    """What the passkeys of a person are asked with; None when they have none."""
    service = service_of(request)
    held = await service.database.read(passkeys.of_user, user_id)
    if not held or not offers_passkeys(service):
        return None
    ceremony = ceremony_of(service, SECOND_STEP, step_cookie_of(request))
    return passkeys.request_options(ceremony, held, service.clock.micros())
