"""What every item of an import needs, and what is said of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel

from auth_svc.audit import Actor
from auth_svc.transfer.document import Outcome
from lib_auth.principal import LADDER
from lib_events.database import Connection
from lib_events.sealed import SealingKey

BUILT_IN = frozenset(LADDER)

type Decided = tuple[Outcome, str | None]


@dataclass(frozen=True, slots=True)
class Intake:
    """One transaction of an import."""

    connection: Connection
    actor: Actor
    sealing_key: SealingKey = field(repr=False)
    issuer: str  # this one's
    is_foreign: bool  # the document is another system's
    secrets: dict[str, str] = field(repr=False)  # new ones, by client

    def is_told(self, item: BaseModel, name: str) -> bool:
        """Whether the document decides a field; another system's says nothing of what only we have."""
        return not self.is_foreign or name in item.model_fields_set

    def roles(self, told: Iterable[str], held: frozenset[str]) -> frozenset[str]:
        """Return the roles to hold: of our built-in ones another system's document takes none away."""
        return frozenset(told) | (held & BUILT_IN if self.is_foreign else frozenset())
