"""Whether a token of ours is still good, decided from the rows themselves."""

from sqlalchemy import bindparam, select

from auth_svc.clients import clients
from auth_svc.people import accounts, sessions
from auth_svc.protocol import families
from auth_svc.protocol.families import MICROS
from auth_svc.tables import revoked_tokens, roles, signing_keys
from lib_auth.principal import Principal
from lib_events.clock import to_micros
from lib_events.database import Connection, Database
from lib_events.prepared import Prepared

# The token itself, or the key that has signed it: what a stolen key signs must end in the middle of a request, too.
REVOKED_KEY = (signing_keys.c.id == bindparam("key")) & signing_keys.c.revoked_at.is_not(None)
MARKED = Prepared(
    select(revoked_tokens.c.token_id)
    .where(revoked_tokens.c.token_id == bindparam("token"))
    .union_all(select(signing_keys.c.id).where(REVOKED_KEY))
)
REFUSED_ROLES = Prepared(select(roles.c.name).where(roles.c.tokens_valid_after >= bindparam("since")))


class OwnRevocations:
    """A `RevocationCheck` that asks the service's own database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def is_revoked(self, principal: Principal, token: str) -> bool:  # noqa: ARG002
        """Whether the token may no longer be used."""
        return await self._database.look(is_revoked, principal)


def is_revoked(connection: Connection, principal: Principal) -> bool:
    """Whether anything the token depends on has ended."""
    client = clients.find(connection, principal.client_id)
    return (
        connection.row(MARKED, token=principal.token_id, key=principal.key_id) is not None
        or client is None
        or client.disabled_at is not None
        or _is_older(principal, client.tokens_valid_after)
        or _is_role_refused(connection, principal)
        or (not principal.is_service and _is_person_out(connection, principal))
        or _is_family_over(connection, principal.family_id)
        or _is_session_over(connection, principal.session_id)
    )


def _is_person_out(connection: Connection, principal: Principal) -> bool:
    account = accounts.find(connection, principal.subject)
    return account is None or not account.enabled or _is_older(principal, account.tokens_valid_after)


def _is_role_refused(connection: Connection, principal: Principal) -> bool:
    """Whether something was taken from a role that the token says, since it was issued."""
    since = to_micros(principal.issued_at) // MICROS * MICROS
    return any(row.name in principal.roles for row in connection.rows(REFUSED_ROLES, since=since))


def _is_older(principal: Principal, tokens_valid_after: int) -> bool:
    return to_micros(principal.issued_at) // MICROS <= tokens_valid_after // MICROS


def _is_family_over(connection: Connection, family_id: str | None) -> bool:
    if family_id is None:
        return False
    family = families.find(connection, family_id)
    return family is None or family.revoked_at is not None


def _is_session_over(connection: Connection, session_id: str | None) -> bool:
    if session_id is None:
        return False
    session = sessions.find(connection, session_id)
    return session is None or session.ended_at is not None
