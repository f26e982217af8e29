"""Reads what Django's `dumpdata` writes of its users and groups, as a document of ours.

Permissions stay behind: they name tables of that project. So does being a superuser, which makes nobody an
administrator here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from auth_svc.people import password_hashes
from auth_svc.people.password_hashes import HashRejected
from auth_svc.transfer.reading import Reader, Reading

UNUSABLE = "!"  # what a hash begins with that no password has


class DjangoUser(BaseModel):
    """A row of `auth.user`, or of the project's own table of users."""

    username: str | None = None
    email: str = ""
    password: str = Field(repr=False)
    first_name: str = ""
    last_name: str = ""
    is_active: bool = True
    is_staff: bool = False
    is_superuser: bool = False
    groups: list[int | str | list[str]] = Field(default=[])  # keys, or names with --natural-foreign


class Row(BaseModel):
    """One object of a dump."""

    model: str
    pk: int | str | None = None
    fields: dict[str, Any] = Field(repr=False)

    @property
    def is_user(self) -> bool:
        """Whether it is somebody who signs in, whatever the project calls them."""
        return "password" in self.fields and ("username" in self.fields or "email" in self.fields)


def is_dump(content: Any) -> bool:
    """Whether a document is a list of Django's objects."""
    return (
        isinstance(content, list)
        and content != []
        and all(isinstance(row, dict) and "fields" in row for row in content)
    )


def read_dump(content: Sequence[Any]) -> Reading:
    """Return what the dump says of people and groups; raises `ValidationError`."""
    rows, reader = [Row.model_validate(row) for row in content], Reader()
    groups = {row.pk: str(row.fields.get("name")) for row in rows if row.model == "auth.group"}
    for row in rows:
        if row.model == "auth.group":
            name = str(row.fields.get("name"))
            reader.take("group", name, {"name": name})
        elif row.is_user:
            user = DjangoUser.model_validate(row.fields)
            username = user.username or user.email
            reader.take("user", username, _user(row, user, username, groups))
        else:
            reader.leave("objects", row.model, "only users and groups are read of a dump")
    return reader.reading()


def _user(row: Row, user: DjangoUser, username: str, groups: Mapping[Any, str]) -> Mapping[str, Any]:
    notes = list(_notes(user))
    try:
        kept = (
            None if user.password.startswith(UNUSABLE) or not user.password else password_hashes.accept(user.password)
        )
    except HashRejected as error:
        kept = None
        notes.append(str(error))
    return {
        "id": None if row.pk is None else str(row.pk),
        "username": username,
        "name": f"{user.first_name} {user.last_name}".strip()[:80] or None,
        "email": user.email or None,
        "groups": [_group(key, groups) for key in user.groups],
        "enabled": user.is_active,
        "password_hash": kept,
        "note": "; ".join(notes) or None,
    }


def _notes(user: DjangoUser) -> Iterator[str]:
    if user.is_superuser:
        yield "was a superuser, which nobody becomes by an import"
    elif user.is_staff:
        yield "was staff; give them a role"


def _group(key: int | str | list[str], groups: Mapping[Any, str]) -> str:
    return key[0] if isinstance(key, list) else groups.get(key, str(key))
