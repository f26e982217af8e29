"""For whom a run acts, as the API says it: decided from what is declared, what is held, and the time."""

from collections.abc import Sequence
from typing import Literal

from app_svc.delegations import Held
from app_svc.documents import ActingDocument, ServiceDocument
from lib_events.clock import to_datetime
from lib_workflows import Delegation


def describe_acting(declared: Sequence[Delegation], held: Held | None, now: int) -> ActingDocument:
    """What a run does at the declared services for whoever started it, by what it `held`; times are micros."""
    services = [ServiceDocument(resource=each.resource, scope=list(each.scope)) for each in declared]
    if held is None:
        return ActingDocument(state="nobody", until=None, services=services)
    state: Literal["acting", "expired", "stopped"] = "acting"
    if held.withdrawn_at is not None:
        state = "stopped"
    elif held.expires_at < now:
        state = "expired"
    return ActingDocument(state=state, until=to_datetime(held.expires_at), services=services)
