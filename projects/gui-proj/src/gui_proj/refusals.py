"""What the AppService refused, above the form that it refused: in words, and with the way to what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass

import htpy as h

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import notice
from gui_proj.visit import Visit


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is in the way; `consent_uri` is where the person allows it first."""

    words: str = ""
    consent_uri: str | None = None

    @classmethod
    def of(cls, error: AppServiceRefused, *, stray: Sequence[str] = (), at_fields: bool = False) -> "Refusal":
        """What stands above the form: what no field shows; all of it where nothing is `at_fields`."""
        uri = error.body.get("consent_uri") if error.kind == "consent-needed" else None
        if uri:
            return cls("Allow it to act for you first; then come back here and repeat.", str(uri))
        return cls(" · ".join(stray) if at_fields or stray else f"{error.title}. {error.detail}")


def refusal_notice(visit: Visit, refusal: Refusal, *, has_errors: bool) -> h.Node:
    """Nothing where nothing was refused and no field has an error."""
    if not refusal.words and not has_errors:
        return None
    return notice(_words(visit, refusal), tone="bad")


def _words(visit: Visit, refusal: Refusal) -> h.Node:
    # Only to the AuthService: whatever the address, people give their password where it leads.
    if refusal.consent_uri and refusal.consent_uri.startswith(f"{visit.gui.settings.auth_url}/"):
        allow = h.a(href=refusal.consent_uri, target="_blank", rel="noopener")["Allow it (in another tab)"]
        return [refusal.words, " ", allow]
    return refusal.words or "Some fields need another look."
