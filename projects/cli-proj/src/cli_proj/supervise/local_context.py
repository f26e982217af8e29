"""The context `local` that a running product leaves in DATA, so that the same user's `evs` works at once."""

import json
from pathlib import Path

from cli_proj.context import CONTEXT_FILE, LOCAL_CLIENT
from lib_events.secret_file import write_secret
from lib_events.settings import Settings

KEPT_TOKENS = f"{LOCAL_CLIENT}.tokens.json"


def leave_context(settings: Settings) -> None:
    """Write where the services are; the AuthService itself leaves the credentials beside it."""
    content = {"auth_url": settings.auth_url, "app_url": settings.app_url, "gui_url": settings.gui_url}
    write_secret(settings.data / CONTEXT_FILE, json.dumps(content, indent=2) + "\n")


def remove_context(data: Path) -> None:
    """Take back the context and its credentials."""
    for path in (
        data / CONTEXT_FILE,
        data / "secrets" / f"{LOCAL_CLIENT}.secret",
        data / "secrets" / KEPT_TOKENS,
    ):
        path.unlink(missing_ok=True)
