"""The OpenAPI document of the REST resources: summaries, examples, and the problem documents of every operation."""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from auth_svc.api.examples import EXAMPLES
from lib_events.problem import MEDIA_TYPE, TYPE_PREFIX

METHODS = ("get", "post", "put", "patch", "delete")
SIGN_IN = "signIn"
PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457: what is wrong, in words for whoever sent the request.",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "description": "A name for programs."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and what to do."},
        "instance": {"type": "string", "description": "Names the request in the service's log."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "pointer": {"type": "string"},
                    "parameter": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
REFUSALS = {
    "400": (None, "The body cannot be read: it must be UTF-8"),
    "401": ("not-signed-in", "Nobody is signed in, or the access token is for something else"),
    "403": ("role-missing", "The token's scope or the person's role does not reach that far"),
    "404": ("user-unknown", "There is no such thing"),
    "409": ("own-account", "What there is speaks against it"),
    "413": ("body-too-large", "The body is too large"),
    "422": ("invalid-input", "A parameter or a field of the body is not valid"),
    "503": ("try-again", "Not now; try again after the seconds in Retry-After"),
}


def install_openapi(app: FastAPI, issuer: str) -> None:
    """Let `app` describe itself by `describe`."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app, issuer)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


def describe(app: FastAPI, issuer: str) -> dict[str, Any]:
    """Return the document."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components: dict[str, Any] = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # nobody here answers like that
        schemas.pop(name, None)
    schemas["Problem"] = PROBLEM
    for name, schema in schemas.items():
        if example := _example(name):
            schema["examples"] = [example]
    discovery = f"{issuer}/.well-known/openid-configuration"
    components["securitySchemes"] = {SIGN_IN: {"type": "openIdConnect", "openIdConnectUrl": discovery}}
    for path, operation, method in operations(document):
        _complete(path, method, operation)
    return document


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield every operation with its path and method."""
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield path, methods[method], method


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    operation["summary"] = operation.get("description", "").partition(".")[0].partition(";")[0].partition("\n")[0]
    operation["security"] = [{SIGN_IN: ["admin"] if path.startswith("/v1/admin") else []}]
    statuses = ["401", "403", "422", "503"]
    statuses += ["404"] if "{" in path else []
    statuses += ["409"] if method != "get" else []
    statuses += ["400", "413"] if "requestBody" in operation else []
    operation["responses"] |= {status: _refusal(status) for status in sorted(statuses)}


def _refusal(status: str) -> dict[str, Any]:
    kind, description = REFUSALS[status]
    example = {
        "type": TYPE_PREFIX + kind if kind else "about:blank",
        "title": description,
        "status": int(status),
        "detail": description,
        "instance": "urn:evs:request:4f9c1d",
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}
    return {"description": description, "content": content}


def _example(name: str) -> Any:
    if name.startswith("Page_"):
        item = EXAMPLES.get(name.removeprefix("Page_").rstrip("_"))
        return {"items": [item], "next_cursor": None} if item else None
    return EXAMPLES.get(name)
