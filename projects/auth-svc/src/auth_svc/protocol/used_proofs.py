"""The proofs that were used, as rows: none counts twice, whichever process of this service it comes to."""

from sqlalchemy.dialects import postgresql, sqlite

from auth_svc.protocol.families import MICROS
from auth_svc.tables import proofs
from lib_auth.dpop import KEPT_SECONDS
from lib_events.database import Connection, Database
from lib_events.prepared import Prepared

COLUMNS = ("digest", "expires_at")
USE = {
    "sqlite": Prepared(sqlite.insert(proofs).inline().on_conflict_do_nothing(), columns=COLUMNS),
    "postgresql": Prepared(postgresql.insert(proofs).inline().on_conflict_do_nothing(), columns=COLUMNS),
}


def use(connection: Connection, digest: bytes, expires_at: int) -> bool:
    """Take a proof until `expires_at`; False when it was taken before."""
    return bool(connection.change(USE[connection.dialect_name], digest=digest, expires_at=expires_at))


class UsedProofs:
    """The `ReplayMemory` of the service's own resources (userinfo, the REST API): a row for each bound request."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, digest: bytes, now: float) -> bool:
        """Take a proof; False when it was taken before, here or by another process."""
        return await self._database.transact(use, digest, int((now + KEPT_SECONDS) * MICROS))
