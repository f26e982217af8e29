"""What else a realm's export holds: it has no place here, and whoever moves must know what to do about it."""

from collections.abc import Callable, Iterable, Sequence

from auth_svc.people.password_policy import LONGEST, SHORTEST
from auth_svc.transfer.keycloak.realm import Realm
from auth_svc.transfer.reading import Reader

USER_STORAGE = "org.keycloak.storage.UserStorageProvider"

type Names = Callable[[Realm], Iterable[str]]

REST: Sequence[tuple[str, Names, str]] = (
    (
        "identity provider",
        lambda realm: (provider.alias for provider in realm.identityProviders),
        "its secret is not for an import; register it with: evs admin upstream create, then import again for the links",
    ),
    (
        "user federation",
        lambda realm: (provider.name for provider in realm.components.get(USER_STORAGE, ())),
        "people of a directory come by an OpenID provider in front of it: evs admin upstream create",
    ),
    (
        "authentication flow",
        lambda realm: (flow.alias for flow in realm.authenticationFlows if not flow.builtIn and flow.topLevel),
        "sign-in is one way here: password or passkey, then the second factor; see EVS_REQUIRE_SECOND_FACTOR",
    ),
    (
        "organization",
        lambda realm: (organization.name for organization in realm.organizations),
        "make a group of it: evs admin group create",
    ),
    (
        "mail server",
        lambda realm: [str(realm.smtpServer["host"])] if realm.smtpServer.get("host") else [],
        "set EVS_SMTP_URL",
    ),
    (
        "password policy",
        lambda realm: [realm.passwordPolicy] if realm.passwordPolicy else [],
        f"new passwords have {SHORTEST} to {LONGEST} characters and are none that many use (NIST SP 800-63B)",
    ),
    (
        "registration",
        lambda realm: ["open"] if realm.registrationAllowed else [],
        "people make themselves accounts with EVS_REGISTRATION=open",
    ),
)


def tell_the_rest(realm: Realm, reader: Reader) -> None:
    """Name what is left out."""
    for kind, names, why in REST:
        for name in names(realm):
            reader.leave(kind, name, why)
