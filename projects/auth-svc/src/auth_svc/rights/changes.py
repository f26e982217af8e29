"""What a change that an administrator asks for can meet; the API turns each into its problem document."""


class ChangeRejected(Exception):
    """Something cannot be made or changed like that; `field` is at fault."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


class NotThere(Exception):
    """There is no such thing; `kind` is what was looked for."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is no {kind} {name!r}; list them with: evs admin {kind} list")
        self.kind = kind


class ChangeConflicts(Exception):
    """What there is speaks against the change; `reason` is a short name for programs."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
