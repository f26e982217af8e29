"""What a resource server keeps: revocations and proofs that were used, so that a restart does not forget them."""

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, Table, Text

from lib_events.database import Schema

metadata = MetaData()
SCHEMA = Schema("lib_auth", metadata, "lib_auth.migrations")

revocations = Table(
    "token_revocations",
    metadata,
    Column("kind", Text, primary_key=True),  # token | family | session | user | client | role | key
    Column("value", Text, primary_key=True),
    Column("issued_until", BigInteger, nullable=False),  # seconds; 0: whenever it was issued
    Column("expires_at", BigInteger, nullable=False),  # seconds; after it nothing it names can be valid
    Index("token_revocations_expires", "expires_at"),
)

revocation_cursors = Table(
    "token_revocation_cursors",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("cursor", Text, nullable=False),
)

# The DPoP proofs that were used, kept as long as they could come again (RFC 9449 section 11.1).
used_proofs = Table(
    "used_proofs",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("expires_at", BigInteger, nullable=False),  # microseconds
    Index("used_proofs_expires", "expires_at"),
)
