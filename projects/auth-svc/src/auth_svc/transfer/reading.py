"""What was read of a document: the items it holds in our words, and what of another system's has none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from auth_svc.transfer.document import (
    FORMAT,
    VERSION,
    ClientItem,
    Document,
    GroupItem,
    Kind,
    LeftOut,
    ReportItem,
    RoleItem,
    UserItem,
)

MODELS: Mapping[Kind, type[BaseModel]] = {"role": RoleItem, "group": GroupItem, "client": ClientItem, "user": UserItem}


@dataclass(frozen=True, slots=True)
class Reading:
    """A document, and what of another system's export did not get into it."""

    document: Document
    refused: list[ReportItem] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    is_foreign: bool = False  # it says nothing of what people and clients have changed here since


class Reader:
    """Collects what another system's export says; one bad item holds up none of the others."""

    def __init__(self) -> None:
        self._taken: dict[Kind, list[Any]] = {kind: [] for kind in MODELS}
        self.refused: list[ReportItem] = []
        self.left_out: list[LeftOut] = []

    def take(self, kind: Kind, name: str, fields: Mapping[str, Any]) -> None:
        """Take an item, or refuse it where it is none of ours."""
        try:
            self._taken[kind].append(MODELS[kind].model_validate(fields))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            self.refuse(kind, name, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")

    def refuse(self, kind: Kind, name: str, why: str) -> None:
        """Say that an item cannot be taken over at all."""
        self.refused.append(ReportItem(kind=kind, name=name, outcome="refused", why=why))

    def leave(self, kind: str, name: str, why: str) -> None:
        """Say that something has no place here, once."""
        left = LeftOut(kind=kind, name=name, why=why)
        if left not in self.left_out:
            self.left_out.append(left)

    def reading(self) -> Reading:
        """Return what was taken, still to be checked against what is here as any document."""
        document = Document(
            format=FORMAT,
            version=VERSION,
            resources=[],
            roles=self._taken["role"],
            groups=self._taken["group"],
            clients=self._taken["client"],
            upstreams=[],
            users=self._taken["user"],
        )
        return Reading(document, self.refused, self.left_out, is_foreign=True)
