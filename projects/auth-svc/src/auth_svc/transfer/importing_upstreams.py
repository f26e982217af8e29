"""Import of one upstream: another OpenID provider, and our client's secret there."""

from dataclasses import replace
from urllib.parse import urlsplit

from auth_svc.loopback import is_loopback
from auth_svc.transfer.document import UpstreamItem
from auth_svc.transfer.intake import Decided, Intake
from auth_svc.upstreams import providers
from auth_svc.upstreams.providers import Upstream, UpstreamRejected
from lib_events.sealed import SecretUnreadable


def take_upstream(into: Intake, item: UpstreamItem) -> Decided:
    """Bring one upstream in, or up to date; raises what makes an item refused."""
    here = is_loopback(urlsplit(into.issuer).hostname)
    issuer = providers.check(item.issuer, item.scopes, is_loopback_here=here)
    known = providers.find(into.connection, item.id)
    if known is None:
        providers.register(into.connection, _upstream(into, item, issuer), into.actor)
        return "created", None
    if known.issuer.rstrip("/") != issuer.rstrip("/"):
        raise UpstreamRejected(
            "issuer", f"{item.id} is {known.issuer} here; remove it first, or rename it in the document"
        )
    wanted = replace(_upstream(into, item, known.issuer, known), created_at=known.created_at)
    if wanted == known:
        return "unchanged", None
    providers.change(into.connection, wanted, into.actor)
    return "changed", None


def _upstream(into: Intake, item: UpstreamItem, issuer: str, known: Upstream | None = None) -> Upstream:
    fields = item.model_dump(exclude={"client_secret", "issuer", "domains"})
    made = Upstream(**fields, issuer=issuer, sealed=b"", domains=tuple(item.domains), created_at=into.actor.at)
    if item.client_secret is None:
        if known is None:
            raise UpstreamRejected(
                "client_secret", "the document has none; register it with: evs admin upstream create"
            )
        return made.with_secret(known.sealed)
    if known is not None and _is_sealed_in(into, known, item.client_secret):
        return made.with_secret(known.sealed)
    return made.with_secret(into.sealing_key.seal(item.client_secret, purpose=made.purpose))


def _is_sealed_in(into: Intake, known: Upstream, secret: str) -> bool:
    try:
        return into.sealing_key.unseal(known.sealed, purpose=known.purpose) == secret
    except SecretUnreadable:  # it was sealed with a key that is no more
        return False
