"""What clients discover: the endpoints, what they support, and the public keys. Readable from any web page."""

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from auth_svc.clients.assertion import ALGORITHMS as ASSERTION_ALGORITHMS
from auth_svc.clients.client import ANY_CLIENT, CONFIDENTIAL, GRANT_TYPES, ID_TOKEN_ALGORITHMS
from auth_svc.people.approvals import APP_SERVICE, ApprovalDecided
from auth_svc.protocol.authorization_request import RESPONSE_MODES
from auth_svc.protocol.issuer import Issuer
from auth_svc.proving.assurance import LEVELS
from auth_svc.service import service_of
from auth_svc.settings import SERVICE, AuthSettings
from lib_auth import events as account_events
from lib_auth.dpop import ALGORITHMS as PROOF_ALGORITHMS
from lib_auth.jwks import ALGORITHMS as ACCESS_TOKEN_ALGORITHMS
from lib_events.contracts.asyncapi import describe_service

VERSION = "1.0.0"
HEADERS = {"access-control-allow-origin": "*", "cache-control": "public, max-age=300"}


async def metadata(request: Request) -> Response:
    """OpenID Connect Discovery section 3 and RFC 8414 section 2, in one document."""
    return _public(describe(service_of(request).issuer, service_of(request).settings))


async def jwks(request: Request) -> Response:
    """The public keys (RFC 7517 section 5)."""
    return _public(service_of(request).issuer.keys.document())


async def asyncapi(request: Request) -> Response:
    """Which events we send and receive (AsyncAPI 3)."""
    return _public(service_of(request).event_document)


async def admin_resource(request: Request) -> Response:
    """Where to sign in for the admin API (RFC 9728)."""
    issuer = service_of(request).issuer
    return _public(
        {
            "resource": issuer.resources.admin,
            "authorization_servers": [issuer.url],
            "scopes_supported": sorted(_scopes_of(issuer, issuer.resources.admin)),
            "bearer_methods_supported": ["header"],
            "resource_name": "AuthService administration",
        }
    )


def describe_events(contracts: Mapping[str, int]) -> dict[str, Any]:
    """The AsyncAPI document."""
    received = {APP_SERVICE: [ApprovalDecided]}
    return describe_service(SERVICE, version=VERSION, sent=account_events.ALL, received=received, contracts=contracts)


def describe(issuer: Issuer, settings: AuthSettings) -> dict[str, Any]:
    """The discovery document."""
    oauth2 = issuer.url + "/oauth2"
    registration = {} if settings.client_registration == "off" else {"registration_endpoint": f"{oauth2}/register"}
    return registration | {
        "issuer": issuer.url,
        "authorization_endpoint": f"{oauth2}/authorize",
        "token_endpoint": f"{oauth2}/token",
        "jwks_uri": f"{oauth2}/jwks",
        "userinfo_endpoint": f"{oauth2}/userinfo",
        "revocation_endpoint": f"{oauth2}/revoke",
        "introspection_endpoint": f"{oauth2}/introspect",
        "device_authorization_endpoint": f"{oauth2}/device_authorization",
        "end_session_endpoint": f"{oauth2}/logout",
        "pushed_authorization_request_endpoint": f"{oauth2}/par",
        "scopes_supported": sorted(issuer.resources.scopes),
        "response_types_supported": ["code"],
        "response_modes_supported": list(RESPONSE_MODES),
        "grant_types_supported": list(GRANT_TYPES),
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ANY_CLIENT,
        "revocation_endpoint_auth_methods_supported": ANY_CLIENT,
        "introspection_endpoint_auth_methods_supported": CONFIDENTIAL,
        "acr_values_supported": list(LEVELS),
        "subject_types_supported": ["public"],
        "token_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS),
        "revocation_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS),
        "introspection_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS),
        "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "id_token_signing_alg_values_supported": list(ID_TOKEN_ALGORITHMS),
        # Not a registered name (RFC 8414 section 7.1.2), but what resource servers ask for (RFC 9068 section 2.1).
        "access_token_signing_alg_values_supported": list(ACCESS_TOKEN_ALGORITHMS),
        "require_pushed_authorization_requests": False,
        "client_id_metadata_document_supported": settings.client_documents,
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "claims_supported": [
            *("iss", "sub", "aud", "exp", "iat", "auth_time", "acr", "amr", "nonce", "at_hash", "sid"),
            *("name", "preferred_username", "updated_at", "email", "email_verified", "groups"),
        ],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "authorization_response_iss_parameter_supported": True,
        "claims_parameter_supported": False,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "protected_resources": list(issuer.resources.identifiers),
    }


def _scopes_of(issuer: Issuer, identifier: str) -> Iterable[str]:
    resource = issuer.resources.find(identifier)
    return resource.scopes if resource is not None else ()


def _public(document: Mapping[str, Any]) -> Response:
    return JSONResponse(dict(document), headers=HEADERS)
