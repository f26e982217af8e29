"""What there is to call, and who may."""

from typing import Annotated

from fastapi import Depends, FastAPI

from lib_auth.principal import Principal
from lib_auth.resource_server import ResourceServer
from lib_events.http.health import health_routes

from .settings import ServiceSettings

# Of the resource and of its client at the AuthService, and of the scope.
NAME = "new-service"


def create_app(settings: ServiceSettings) -> FastAPI:
    """Return the application; `settings` say who issues tokens and for whom."""
    secret = settings.new_service_client_secret
    sign_in = ResourceServer(
        settings.auth_url,
        settings.new_service_url,
        client_id=NAME,
        client_secret=secret,
        scopes=[NAME],
    )
    app = sign_in.protect(FastAPI(title=NAME))
    app.router.routes.extend(health_routes({"revocations": sign_in.check_ready}))

    @app.get("/greeting")
    async def greeting(who: Annotated[Principal, Depends(sign_in.requires(scope=NAME))]) -> dict[str, str]:
        """Greet whoever asks."""
        return {"greeting": f"Hello, {who.username or who.subject}"}

    return app
