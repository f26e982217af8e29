"""A realm as Keycloak exports it: what we read of it, under Keycloak's names."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field, model_validator

# ruff: noqa: N815 - Keycloak's names


class Representation(BaseModel):
    """A JSON object of Keycloak's; what is null is as good as absent."""

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


class Credential(Representation):
    """How somebody proves who they are; `secretData` and `credentialData` are JSON in JSON."""

    type: str = ""
    secretData: str = Field(default="{}", repr=False)
    credentialData: str = "{}"
    value: str | None = Field(default=None, repr=False)  # as people write realms by hand
    hashedSaltedValue: str | None = Field(default=None, repr=False)  # until version 7
    salt: str | None = Field(default=None, repr=False)
    hashIterations: int | None = None
    algorithm: str | None = None


class FederatedIdentity(Representation):
    """Who somebody is at another provider."""

    identityProvider: str
    userId: str


class User(Representation):
    """A person, or the account of a client that acts by itself."""

    id: str | None = None
    username: str
    email: str | None = None
    emailVerified: bool = False
    firstName: str | None = None
    lastName: str | None = None
    enabled: bool = True
    realmRoles: list[str] = Field(default=[])
    clientRoles: dict[str, list[str]] = Field(default={})
    groups: list[str] = Field(default=[])
    credentials: list[Credential] = Field(default=[], repr=False)
    requiredActions: list[str] = Field(default=[])
    federatedIdentities: list[FederatedIdentity] = Field(default=[])
    federationLink: str | None = None
    attributes: dict[str, Any] | None = None
    serviceAccountClientId: str | None = None


class Composites(Representation):
    """The roles that a role includes."""

    realm: list[str] = Field(default=[])
    client: dict[str, list[str]] = Field(default={})


class Role(Representation):
    """A role of the realm or of a client."""

    name: str
    description: str | None = None
    composites: Composites = Field(default=Composites())


class Roles(Representation):
    """Those of the realm, and those of each client."""

    realm: list[Role] = Field(default=[])
    client: dict[str, list[Role]] = Field(default={})


class Group(Representation):
    """A group, with those inside it."""

    name: str
    realmRoles: list[str] = Field(default=[])
    clientRoles: dict[str, list[str]] = Field(default={})
    subGroups: list["Group"] = Field(default=[])


class Named(Representation):
    """What only its name is read of."""

    name: str = ""


class Client(Representation):
    """A program; `attributes` are texts."""

    clientId: str
    name: str | None = None
    enabled: bool = True
    protocol: str | None = None
    publicClient: bool = False
    bearerOnly: bool = False
    secret: str | None = Field(default=None, repr=False)
    clientAuthenticatorType: str = "client-secret"
    rootUrl: str | None = None
    redirectUris: list[str] = Field(default=[])
    webOrigins: list[str] = Field(default=[])
    standardFlowEnabled: bool = True
    implicitFlowEnabled: bool = False
    directAccessGrantsEnabled: bool = False
    serviceAccountsEnabled: bool = False
    authorizationServicesEnabled: bool = False
    consentRequired: bool = False
    attributes: dict[str, Any] = Field(default={})
    defaultClientScopes: list[str] | None = None
    optionalClientScopes: list[str] | None = None
    protocolMappers: list[Named] = Field(default=[])

    def says(self, attribute: str) -> bool:
        """Whether an attribute is switched on."""
        return str(self.attributes.get(attribute)).lower() == "true"

    def text(self, attribute: str) -> str | None:
        """Return an attribute that is set."""
        value = self.attributes.get(attribute)
        return str(value) if value not in (None, "") else None


class IdentityProvider(Representation):
    """Another provider whose people may sign in."""

    alias: str
    providerId: str = ""
    config: dict[str, Any] = Field(default={}, repr=False)


class Flow(Representation):
    """A way to sign in that somebody put together."""

    alias: str = ""
    builtIn: bool = True
    topLevel: bool = True


class Realm(Representation):
    """What we read of a realm's export."""

    realm: str
    accessTokenLifespan: int = 300
    defaultSignatureAlgorithm: str = "RS256"
    defaultDefaultClientScopes: list[str] = Field(default=["profile", "email"])
    defaultOptionalClientScopes: list[str] = Field(default=["offline_access"])
    users: list[User] = Field(default=[])
    roles: Roles = Field(default=Roles())
    groups: list[Group] = Field(default=[])
    clients: list[Client] = Field(default=[])
    identityProviders: list[IdentityProvider] = Field(default=[])
    authenticationFlows: list[Flow] = Field(default=[])
    components: dict[str, list[Named]] = Field(default={})
    smtpServer: dict[str, Any] = Field(default={}, repr=False)
    passwordPolicy: str | None = None
    registrationAllowed: bool = False
    organizations: list[Named] = Field(default=[])

    def people(self) -> Iterator[User]:
        """Yield those who are no client's account."""
        return (user for user in self.users if user.serviceAccountClientId is None)
