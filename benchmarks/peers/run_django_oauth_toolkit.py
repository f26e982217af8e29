"""django-oauth-toolkit under gunicorn with SQLite (WAL, synchronous=NORMAL): client_credentials, opaque tokens.

One worker, keep-alive by gthread. The client's secret is kept plain: with the default, a slow hash of it at every
request, the service does about three grants a second on this machine. Each grant writes one row.
Called as: run_django_oauth_toolkit.py PORT SECRET FOLDER
"""

import os
import sys
from pathlib import Path

PORT, SECRET, FOLDER = sys.argv[1:4]

from django.conf import settings  # noqa: E402 - Django is configured before it is used

settings.configure(
    SECRET_KEY="a benchmark's",
    ALLOWED_HOSTS=["127.0.0.1"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(Path(FOLDER) / "django.db"),
            "CONN_MAX_AGE": None,
            "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"},
        }
    },
    OAUTH2_PROVIDER={"SCOPES": {"read": "Read"}},
    ROOT_URLCONF=__name__,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)

import django  # noqa: E402

django.setup()

from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import include, path  # noqa: E402
from gunicorn.app.base import BaseApplication  # noqa: E402
from oauth2_provider.models import get_application_model  # noqa: E402

urlpatterns = [path("o/", include("oauth2_provider.urls"))]


class Server(BaseApplication):
    """gunicorn, configured here."""

    def load_config(self) -> None:
        for name, value in {
            "bind": f"127.0.0.1:{PORT}",
            "worker_class": "gthread",
            "threads": 4,
            "workers": 1,
            "keepalive": 60,
            "loglevel": "error",
        }.items():
            self.cfg.set(name, value)

    def load(self) -> object:
        return get_wsgi_application()


def prepare() -> None:
    """Make the database and the client."""
    call_command("migrate", verbosity=0)
    get_application_model().objects.create(
        client_id="bench",
        client_secret=SECRET,
        hash_client_secret=False,
        client_type="confidential",
        authorization_grant_type="client-credentials",
        name="bench",
    )


if __name__ == "__main__":
    prepare()
    os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    Server().run()
