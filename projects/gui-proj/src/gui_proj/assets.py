"""Our style sheet, script and icon: read once, compressed once, cached by browsers for ever under their digest."""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

MEDIA_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    name: str
    content: bytes
    compressed: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()[:12]

    @property
    def url(self) -> str:
        return f"/static/{self.digest}/{self.name}"


class Assets:
    """All static files of the package."""

    def __init__(self) -> None:
        folder = files("gui_proj") / "static"
        contents = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
        self._assets = {
            name: Asset(name, content, gzip.compress(content, mtime=0)) for name, content in contents.items()
        }

    def url(self, name: str) -> str:
        return self._assets[name].url

    def route(self) -> Route:
        return Route("/static/{digest}/{name}", self._serve)

    async def _serve(self, request: Request) -> Response:
        asset = self._assets.get(request.path_params["name"])
        if asset is None:
            raise HTTPException(404)
        current = request.path_params["digest"] == asset.digest
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable" if current else "no-cache",
            "Content-Type": MEDIA_TYPES[asset.name.rpartition(".")[2]],
            "Vary": "Accept-Encoding",
        }
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return Response(asset.compressed, headers=headers | {"Content-Encoding": "gzip"})
        return Response(asset.content, headers=headers)
