"""The authorization code grant (RFC 6749 section 4.1) with PKCE for everybody (RFC 7636)."""

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from authlib.oauth2.rfc6749 import InvalidRequestError, grants
from authlib.oauth2.rfc7636 import CodeChallenge, create_s256_code_challenge

from auth_svc import opaque
from auth_svc.clients.client import ANY_CLIENT, Client
from auth_svc.people.accounts import Account
from auth_svc.protocol import families
from auth_svc.protocol.authorization_request import add_to
from auth_svc.protocol.decision import Decision
from auth_svc.protocol.effects import KillFamily, SaveCode, StartFamily, UseCode
from auth_svc.protocol.families import MICROS
from auth_svc.protocol.request import ProtocolRequest
from auth_svc.protocol.token_rows import Code

CODE_SECONDS = 60


class RequiredChallenge(CodeChallenge):  # type: ignore[misc]
    """PKCE with S256 for every client (OAuth 2.1 section 4.1.1); `plain` protects nobody."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ["S256"]  # noqa: RUF012 - Authlib's attribute

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        """Refuse a request without an S256 challenge."""
        data = grant.request.payload.data
        if "code_challenge" not in data:
            raise InvalidRequestError("Missing 'code_challenge': PKCE is required.")
        # RFC 7636 section 4.3: a missing method means `plain`.
        if data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("'code_challenge_method' must be S256.")
        super().validate_code_challenge(grant, redirect_uri)


class CodeGrant(grants.AuthorizationCodeGrant):  # type: ignore[misc]
    """RFC 6749 section 4.1."""

    TOKEN_ENDPOINT_AUTH_METHODS = ANY_CLIENT
    server: Decision

    @staticmethod
    def validate_authorization_redirect_uri(request: ProtocolRequest, client: Client) -> str:
        """RFC 9700 section 4.1.3: exactly what was registered, and never left out."""
        redirect_uri: str | None = request.payload.redirect_uri
        if redirect_uri is None or not client.check_redirect_uri(redirect_uri):
            raise InvalidRequestError("The 'redirect_uri' must be one that is registered for the client.")
        return redirect_uri

    @staticmethod
    def validate_no_multiple_request_parameter(request: ProtocolRequest) -> None:
        """What decides where an error goes must be there once; the endpoint checks the others afterwards."""
        for name in ("client_id", "redirect_uri", "response_type"):
            if len(request.payload.datalist.get(name, [])) > 1:
                raise InvalidRequestError(f"Multiple '{name}' in request.")

    def create_authorization_response(self, redirect_uri: str, grant_user: Account) -> tuple[int, str, Any]:
        """Section 4.1.2; Authlib would write the query that was registered anew."""
        status, body, headers = super().create_authorization_response("", grant_user)
        answer = dict(parse_qsl(dict(headers)["Location"].removeprefix("?")))
        return status, body, [("Location", add_to(redirect_uri, answer))]

    def generate_authorization_code(self) -> str:
        """256 bits."""
        return opaque.new_secret()

    def save_authorization_code(self, code: str, request: ProtocolRequest) -> None:
        """List the code and the family it opens."""
        server, data = self.server, request.payload.data
        family = families.opened(
            user_id=request.user.id,
            client_id=request.client.id,
            scope=request.scope,
            resources=server.resources,
            session_id=server.session_id,
            authenticated_at=server.authenticated_at,
            methods=server.methods,
            now=server.now,
        )
        server.effects.append(StartFamily(family, server.session_id, server.was_allowed_before))
        server.effects.append(
            SaveCode(
                digest=opaque.digest(code),
                family_id=family.id,
                redirect_uri=data["redirect_uri"],
                challenge=data["code_challenge"],
                nonce=data.get("nonce"),
                key_thumbprint=data.get("dpop_jkt"),
                expires_at=server.now + CODE_SECONDS * MICROS,
            )
        )

    def query_authorization_code(self, code: str, client: Client) -> Code | None:  # noqa: ARG002
        """The code, if this client may redeem it now."""
        row = self.server.rows.code
        if row is None or row.family.client_id != client.id:
            return None
        if row.used_at is not None:
            # RFC 6749 section 4.1.2: a code used twice takes its tokens with it. Whoever has the code alone must not
            # be able to end them (OAuth 2.1 section 7.5.3).
            if self._is_whole(row):
                self.server.effects.append(KillFamily(row.family.id, "an authorization code was used twice"))
            return None
        if self.server.now >= row.expires_at or row.family.revoked_at is not None:
            return None
        if row.key_thumbprint is not None and not self.server.holds(row.key_thumbprint):
            return None  # RFC 9449 section 10: only the holder of the key that was named
        if "redirect_uri" not in self.request.form:
            return replace(row, redirect_uri="")  # OAuth 2.1 section 10.2: the challenge does its work
        return row

    def _is_whole(self, row: Code) -> bool:
        """Whether everything that belongs to the code came with it."""
        form = self.request.form
        fits: bool = create_s256_code_challenge(form.get("code_verifier", "")) == row.code_challenge
        return fits and form.get("redirect_uri", row.redirect_uri) == row.redirect_uri

    def authenticate_user(self, authorization_code: Code) -> Account | None:
        """The person, unless something came between."""
        self.server.family = authorization_code.family
        return self.server.person(authorization_code.family)

    def delete_authorization_code(self, authorization_code: Code) -> None:
        """List the code's use."""
        self.server.effects.append(UseCode(authorization_code.digest, authorization_code.family.id))
