"""A realm's roles: those of the realm under their names, those of a client as `client-role`; each is one role here.

Two roles never become one, and none becomes a built-in one: somebody would be allowed what nobody has allowed them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from auth_svc.rights.roles import ROLE
from auth_svc.transfer.keycloak.realm import Composites, Realm, Role
from auth_svc.transfer.reading import Reader
from lib_auth.principal import LADDER

KEYCLOAKS_OWN = re.compile(r"offline_access|uma_authorization|default-roles-.*")
DEFAULTS = re.compile(r"default-roles-.*")
OWN_CLIENTS = frozenset(
    ("account", "account-console", "admin-cli", "broker", "realm-management", "security-admin-console")
)
# What everybody holds there of Keycloak's own pages is worth no word; who administers the realm is.
SILENT = frozenset(("account", "broker"))

type Source = tuple[str | None, str]  # the client whose role it is, if it is one's, and its name


class TakenRoles:
    """What each of the realm's roles is called here."""

    def __init__(self, realm: Realm, reader: Reader) -> None:
        self._names: dict[Source, str | None] = {}
        self._defaults = {role.name: role.composites for role in realm.roles.realm if DEFAULTS.fullmatch(role.name)}
        described = list(_described(realm))
        for source, _ in described:
            self._names[source] = self._choose(source, reader)
        for source, role in described:
            if (name := self._names[source]) is not None:
                self._take(source, name, role, reader)

    def held(self, realm: Iterable[str], client: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
        """Return the roles to hold here, and those that cannot be taken over."""
        names, left = set(), set()
        for source in self._spread(realm, client):
            if (name := self._name(source)) is not None:
                names.add(name)
            elif not _is_silent(source):
                left.add(shown(source))
        return sorted(names), sorted(left)

    def _spread(self, realm: Iterable[str], client: Mapping[str, Sequence[str]]) -> Iterator[Source]:
        """Yield each role, and with the default ones, which are a composite, what they consist of."""
        for name in realm:
            yield None, name
            if (defaults := self._defaults.get(name)) is not None:
                yield from _sources(defaults)
        yield from _sources(Composites(client={owner: list(names) for owner, names in client.items()}))

    def _name(self, source: Source) -> str | None:
        """An export of people alone does not describe roles: an earlier one may have brought them."""
        if source in self._names:
            return self._names[source]
        name = _proper(source)
        return None if name in self._names.values() else name

    def _choose(self, source: Source, reader: Reader) -> str | None:
        name = _proper(source)
        if name is None:
            if not _is_keycloaks(source):
                why = "a role here has lower-case letters, digits, - and _, and no built-in one comes from elsewhere"
                reader.leave("role", shown(source), f"{why}; give a role of yours to whoever held it")
            return None
        if name in self._names.values():
            reader.leave("role", shown(source), f"another one is called {name} here already; rename one of them")
            return None
        return name

    def _take(self, source: Source, name: str, role: Role, reader: Reader) -> None:
        included, left = self.held(role.composites.realm, role.composites.client)
        for other in left:
            reader.leave("role", shown(source), f"without {other}, which it includes and which is left out")
        fields = {"name": name, "includes": included}
        if role.description and not role.description.startswith("${"):  # the name of a text of Keycloak's
            fields["description"] = role.description[:300]
        reader.take("role", name, fields)


def shown(source: Source) -> str:
    """Call a role so that somebody finds it in Keycloak."""
    owner, name = source
    return name if owner is None else f"{owner}/{name}"


def _described(realm: Realm) -> Iterator[tuple[Source, Role]]:
    for role in realm.roles.realm:
        yield (None, role.name), role
    for client, roles in realm.roles.client.items():
        if client not in OWN_CLIENTS:
            for role in roles:
                yield (client, role.name), role


def _sources(composites: Composites) -> Iterator[Source]:
    for name in composites.realm:
        yield None, name
    for client, names in composites.client.items():
        for name in names:
            yield client, name


def _proper(source: Source) -> str | None:
    """What a role would be called here, if that can be a role from elsewhere."""
    owner, name = source
    wanted = name if owner is None else f"{owner}-{name}"
    wanted = wanted.strip().casefold().replace(" ", "-")
    fits = ROLE.fullmatch(wanted) is not None and wanted not in LADDER
    return wanted if fits and not _is_keycloaks(source) else None


def _is_keycloaks(source: Source) -> bool:
    owner, name = source
    return KEYCLOAKS_OWN.fullmatch(name) is not None if owner is None else owner in OWN_CLIENTS


def _is_silent(source: Source) -> bool:
    owner, name = source
    return KEYCLOAKS_OWN.fullmatch(name) is not None if owner is None else owner in SILENT
