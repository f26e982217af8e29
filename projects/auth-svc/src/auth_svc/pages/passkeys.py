"""The pieces of pages that ask a browser for a passkey; they show themselves where it can be asked."""

import htpy as h

from auth_svc.pages.layout import button, form, hidden

SCRIPT = "/static/passkeys.js"


def passkey_form(
    action: str,
    csrf: str,
    options: str,
    text: str,
    *content: h.Node,
    conditional: bool = False,
    kind: str = "secondary",
) -> h.Node:
    """A form whose button asks for a passkey; `conditional` lets the browser offer it beside the user name, too."""
    return [
        form(
            action,
            csrf,
            hidden("credential", ""),
            content,
            h.p(".field-error", role="alert", data_error=True, hidden=True),
            button(text, kind=kind),
            class_="passkey",
            data_options=options,
            data_conditional="yes" if conditional else None,
            hidden=True,
        ),
        h.script(type="module", src=SCRIPT),
    ]
