"""What the admin API takes and shows."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from auth_svc.people.accounts import Account
from auth_svc.people.passwords import LONGEST
from auth_svc.rights.roles import Roles
from lib_auth.principal import MEMBER
from lib_events.clock import to_datetime

WITHOUT_NUL = r"^[^\x00]*$"  # PostgreSQL keeps no such texts


def _in_utf_8(secret: SecretStr) -> SecretStr:
    """Refuse half of a surrogate pair, which JSON can say: nobody could hash or seal it."""
    try:
        secret.get_secret_value().encode()
    except UnicodeEncodeError as error:
        raise ValueError("must be text that UTF-8 can hold") from error
    return secret


type Secret = Annotated[SecretStr, AfterValidator(_in_utf_8)]


class Body(BaseModel):
    """A request body: unknown members are mistakes."""

    model_config = ConfigDict(extra="forbid")


class UserBody(Body):
    """A new user; without a password one is generated and answered once."""

    username: str = Field(min_length=1, max_length=64)
    email: str | None = Field(default=None, max_length=254)
    name: str | None = Field(default=None, max_length=80)
    password: Annotated[Secret, Field(max_length=LONGEST)] | None = None
    roles: list[str] = Field(default=[MEMBER], max_length=20)


class UserChanges(Body):
    """What of a user to set; what is left out stays."""

    username: str = Field(default="", min_length=1, max_length=64)
    name: str | None = Field(default=None, max_length=80)
    email: str | None = Field(default=None, max_length=254)


class PasswordBody(Body):
    """A new password; without one it is generated and answered once."""

    password: Annotated[Secret, Field(max_length=LONGEST)] | None = None


class RolesBody(Body):
    """All the roles a user holds from now on."""

    roles: list[str] = Field(max_length=20)


class UserView(BaseModel):
    """A user as administrators see them."""

    id: str
    username: str
    name: str | None
    email: str | None
    email_verified: bool
    roles: list[str]
    groups: list[str]
    effective_roles: list[str]  # with those of the groups, and all that these include
    enabled: bool
    created_at: str
    password: str | None = None  # only in the answer that made it

    @classmethod
    def of(cls, account: Account, known: Roles, password: str | None = None) -> "UserView":
        """Show an account, by the roles that are `known`."""
        return cls(
            id=account.id,
            username=account.username,
            name=account.name,
            email=account.email,
            email_verified=account.email_verified,
            roles=sorted(account.roles),
            groups=sorted(account.groups),
            effective_roles=sorted(known.held(account.granted_roles)),
            enabled=account.enabled,
            created_at=to_datetime(account.created_at).isoformat(),
            password=password,
        )


class AuditLine(BaseModel):
    """Who did what, when and from where; with its place in the chain as soon as it has one."""

    id: int
    position: int | None
    at: str
    who: str | None
    what: str
    about: str | None
    address: str | None
    detail: dict[str, Any]
    hash: str | None


class ChainPlace(BaseModel):
    """A place in the audit's chain: keep it elsewhere, and a cut tail is found by it."""

    position: int
    hash: str


class ChainHead(ChainPlace):
    """Where the audit's chain ends, where it begins, and how many lines wait to be chained."""

    anchor: ChainPlace
    anchored_at: str | None
    waiting: int


class ChainPage(BaseModel):
    """Lines in the chain's order; the first one continues `start`."""

    start: ChainPlace
    items: list[AuditLine]
    next_cursor: str | None = None


class Page[T](BaseModel):
    """One page of a list."""

    items: list[T]
    next_cursor: str | None = None
