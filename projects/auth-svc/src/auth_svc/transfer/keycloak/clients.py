"""A realm's clients, as far as OAuth 2.1 lets them be: what a client can no longer do is told beside it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from auth_svc import opaque
from auth_svc.clients.client import (
    BY_KEY,
    CODE,
    CREDENTIALS,
    DEVICE,
    EXCHANGE,
    ID_TOKEN_ALGORITHMS,
    REFRESH,
)
from auth_svc.protocol.families import LONGEST_ACCESS_SECONDS
from auth_svc.transfer.keycloak.realm import Client, Realm, User
from auth_svc.transfer.keycloak.roles import OWN_CLIENTS, TakenRoles
from auth_svc.transfer.reading import Reader

OPENID_CONNECT = "openid-connect"
# Scopes that every client has in Keycloak; they switch on what is always there, or what is nowhere here.
ALWAYS_THERE = ("acr", "basic", "roles", "service_account", "web-origins")
NOWHERE = ("address", "microprofile-jwt", "organization", "phone", "role_list", "saml_organization")
# What Keycloak puts into each service account's tokens.
OWN_MAPPERS = frozenset(("Client ID", "Client Host", "Client IP Address"))
OWN_SCOPES = frozenset((*ALWAYS_THERE, *NOWHERE))
SHORT_SECRET = 20  # Keycloak makes 32 characters; whoever thinks of one makes it shorter
HIDDEN = ("*", "${")  # how Keycloak's pages, and its vault, leave a secret out of an export
SEPARATOR = "##"
IDLE = (
    "it has neither redirect URIs nor a service account nor the device grant, so there is nothing it could do; "
    "if it accepts tokens, make a resource of it: evs admin resource create"
)
AUTHENTICATORS = {"client-secret": None, "client-jwt": BY_KEY}


def read_clients(realm: Realm, roles: TakenRoles, scopes: Collection[str], reader: Reader) -> None:
    """Take the clients that can be; `scopes` are those they may have here."""
    accounts = {user.serviceAccountClientId: user for user in realm.users if user.serviceAccountClientId}
    for client in realm.clients:
        if _is_keycloaks(client, realm):
            continue
        if (why := _why_not(client)) is not None:
            reader.leave("client", client.clientId, why)
            continue
        taken = _Taking(client, realm)
        if not taken.grants:
            reader.leave("client", client.clientId, IDLE)
            continue
        fields = taken.fields(roles, accounts.get(client.clientId), scopes)
        if taken.missing is not None:
            reader.refuse("client", client.clientId, taken.missing)
        else:
            reader.take("client", client.clientId, fields)


def _is_keycloaks(client: Client, realm: Realm) -> bool:
    return client.clientId in OWN_CLIENTS or (realm.realm == "master" and client.clientId.endswith("-realm"))


def _why_not(client: Client) -> str | None:
    """Say why something that Keycloak calls a client has no place among ours."""
    if client.protocol not in (None, OPENID_CONNECT):
        return f"its protocol is {client.protocol}; here clients speak OpenID Connect"
    if client.bearerOnly:
        return "it only accepts tokens; make a resource of it: evs admin resource create"
    return None if client.enabled else "it is disabled"


class _Taking:
    """One client on its way: `notes` collects what it can no longer do, `missing` why it cannot come at all."""

    def __init__(self, client: Client, realm: Realm) -> None:
        self._client = client
        self._realm = realm
        self.notes: list[str] = []
        self.missing: str | None = None
        self.grants = self._grant_types()

    def fields(self, roles: TakenRoles, account: User | None, scopes: Collection[str]) -> Mapping[str, Any]:
        """Return what the client is here."""
        redirects = self._redirects()
        found = self._settings() | {
            "redirect_uris": redirects,
            "post_logout_redirect_uris": self._after_logout(redirects),
            "scopes": self._scopes(scopes),
        }
        if account is not None:  # it is among the people, who may be in another file
            found["roles"] = self._roles(roles, account)
        found |= self._authentication()
        self._tell_the_rest()
        return found | {"note": "; ".join(self.notes)[:2_000] or None}

    def _settings(self) -> dict[str, Any]:
        client = self._client
        return {
            "id": client.clientId,
            "name": self._name(),
            "public": client.publicClient,
            "grant_types": self.grants,
            "consent": "once" if client.consentRequired else "never",
            "access_token_seconds": self._seconds(),
            "id_token_algorithm": self._algorithm(),
            "dpop_bound": client.says("dpop.bound.access.tokens"),
            "pushed_only": client.says("require.pushed.authorization.requests"),
            "logout_uri": client.text("backchannel.logout.url"),
        }

    def _roles(self, roles: TakenRoles, account: User) -> list[str]:
        held, left = roles.held(account.realmRoles, account.clientRoles)
        if left:
            self.notes.append(f"without the roles {', '.join(left)}")
        if account.groups:
            self.notes.append(f"without the roles of the groups {', '.join(account.groups)}: only people are in groups")
        return held

    def _redirects(self) -> list[str]:
        if CODE not in self.grants:
            return []
        exact = self._exact("redirect_uris", self._client.redirectUris)
        if not exact:
            self._miss("redirect_uris", self._client.redirectUris, "exact URIs")
        return exact

    def _miss(self, field: str, given: Sequence[str], wanted: str) -> None:
        got = ", ".join(given[:5]) or "nothing"
        self.missing = f"{field} must name {wanted}, got {got}; correct it in Keycloak or in the file and import again"

    def _name(self) -> str:
        name = self._client.name or ""
        return (name if name and "${" not in name else self._client.clientId)[:80]

    def _grant_types(self) -> list[str]:
        client = self._client
        refreshes = str(client.attributes.get("use.refresh.tokens", "true")).lower() != "false"
        device = client.says("oauth2.device.authorization.grant.enabled")
        by_code = client.standardFlowEnabled and bool(client.redirectUris)
        proves = not client.publicClient
        chosen = {
            CODE: by_code,
            REFRESH: refreshes and (by_code or device),
            CREDENTIALS: client.serviceAccountsEnabled and proves,
            DEVICE: device,
            EXCHANGE: client.says("standard.token.exchange.enabled") and proves,
        }
        return [grant for grant, wanted in chosen.items() if wanted]

    def _exact(self, field: str, given: Iterable[str]) -> list[str]:
        """Return the URIs that are whole; RFC 9700 section 4.1.3: redirect URIs are compared as texts."""
        root = (self._client.rootUrl or "").rstrip("/")
        whole = [f"{root}{uri}" if uri.startswith("/") else uri for uri in given]
        patterns = [uri for uri in whole if "*" in uri or "${" in uri or uri.startswith("/")]
        if patterns:
            self.notes.append(f"{field}: without {', '.join(patterns)}, which name no exact URI")
        return sorted(set(whole) - set(patterns))

    def _after_logout(self, redirects: list[str]) -> list[str]:
        given = (self._client.text("post.logout.redirect.uris") or "-").split(SEPARATOR)
        if given == ["-"]:
            return []
        others = self._exact("post_logout_redirect_uris", (uri for uri in given if uri != "+"))
        return sorted({*others, *(redirects if "+" in given else ())})

    def _scopes(self, known: Collection[str]) -> list[str]:
        client, realm = self._client, self._realm
        default = client.defaultClientScopes
        optional = client.optionalClientScopes
        wanted = set(realm.defaultDefaultClientScopes if default is None else default)
        wanted |= set(realm.defaultOptionalClientScopes if optional is None else optional)
        if {CODE, DEVICE} & set(self.grants):
            wanted.add("openid")
        if left := sorted(wanted - set(known) - OWN_SCOPES):
            made = "make the resource that they belong to (evs admin resource create --scope), then import again"
            self.notes.append(f"without the scopes {', '.join(left)}, which nothing here has: {made}")
        return sorted(wanted & set(known))

    def _seconds(self) -> int:
        own = self._client.text("access.token.lifespan") or ""
        wanted = int(own) if own.isdecimal() else self._realm.accessTokenLifespan
        if wanted > LONGEST_ACCESS_SECONDS:
            self.notes.append(f"access tokens live {LONGEST_ACCESS_SECONDS} s at most, not {wanted}")
        return min(max(wanted, 1), LONGEST_ACCESS_SECONDS)

    def _algorithm(self) -> str:
        wanted = self._client.text("id.token.signed.response.alg") or self._realm.defaultSignatureAlgorithm
        if wanted in ID_TOKEN_ALGORITHMS:
            return wanted
        self.notes.append(f"ID tokens are signed by RS256, not {wanted}")
        return "RS256"

    def _authentication(self) -> Mapping[str, Any]:
        client = self._client
        if client.publicClient:
            return {"auth_method": "none"}
        if client.clientAuthenticatorType not in AUTHENTICATORS:
            self.notes.append(f"it proves itself by its secret, not by {client.clientAuthenticatorType}")
        elif AUTHENTICATORS[client.clientAuthenticatorType] == BY_KEY:
            return self._keys()
        secret = client.secret
        if secret is None or any(mark in secret for mark in HIDDEN):
            self.notes.append("the export does not tell its secret, so it gets a new one")
            return {}
        if len(secret) < SHORT_SECRET:
            self.notes.append(f"its secret is short; change it: evs admin client rotate-secret {client.clientId}")
        return {"secret_digest": opaque.digest(secret).hex()}

    def _keys(self) -> Mapping[str, Any]:
        client = self._client
        at = client.text("jwks.url") if client.says("use.jwks.url") else None
        keys = client.text("jwks.string") if client.says("use.jwks.string") else None
        if at is None and keys is None:
            self._miss("jwks", ["a certificate"], "the client's keys as a JWK set, or where they are")
        return {"auth_method": BY_KEY, "jwks": keys, "jwks_uri": at}

    def _tell_the_rest(self) -> None:
        client = self._client
        method = client.text("pkce.code.challenge.method")
        if mappers := [mapper.name for mapper in client.protocolMappers if mapper.name not in OWN_MAPPERS]:
            self.notes.append(f"no claims are made by {', '.join(mappers)}")
        told = {
            "it must use PKCE with S256, as every client here": CODE in self.grants and method != "S256",
            "its pages ask for tokens themselves only where EVS_CORS_ORIGINS names their origin": client.publicClient
            and bool(client.webOrigins),
            "the implicit flow is gone in OAuth 2.1; it must use the code flow": client.implicitFlowEnabled,
            "the password grant is gone in OAuth 2.1; people sign in on pages": client.directAccessGrantsEnabled,
            "only a client that proves itself has a service account": client.publicClient
            and client.serviceAccountsEnabled,
            "CIBA is not there": client.says("oidc.ciba.grant.enabled"),
            "it hears of logouts by back-channel alone": client.text("frontchannel.logout.url") is not None,
            "its authorization services stay behind; a resource has permissions": client.authorizationServicesEnabled,
        }
        self.notes += [text for text, so in told.items() if so]
