"""Clients that others wrote, unmodified, against a real server on a real port."""

import asyncio

import httpx
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from joserfc import jwt
from joserfc.jwk import KeySet
from requests_oauthlib import OAuth2Session

from lib_auth.client import OAuthClient
from lib_auth.loopback import sign_in

CALLBACK = "http://127.0.0.1:8000/callback"
SCOPE = ["openid", "profile", "workflows:read"]


def discovered(settings):
    return httpx.get(f"{settings.auth_url}/.well-known/openid-configuration").json()


def secret(settings):
    return (settings.secrets / "evs-gui.secret").read_text()


def test_requests_oauthlib_runs_the_code_flow(server, approve, monkeypatch):
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # the library's own switch for http on loopback
    endpoints = discovered(server)
    session = OAuth2Session("evs-gui", redirect_uri=CALLBACK, scope=SCOPE, pkce="S256")
    url, _ = session.authorization_url(endpoints["authorization_endpoint"])
    location = approve(server.auth_url, url)
    token = session.fetch_token(
        endpoints["token_endpoint"], authorization_response=location, client_secret=secret(server)
    )
    assert token["refresh_token"]
    assert session.get(endpoints["userinfo_endpoint"]).json()["preferred_username"] == "admin"
    refreshed = session.refresh_token(endpoints["token_endpoint"], auth=("evs-gui", secret(server)))
    assert refreshed["access_token"] != token["access_token"]
    session.close()


def test_authlib_runs_the_code_flow(server, approve):
    endpoints = discovered(server)
    with AuthlibSession(
        "evs-gui", secret(server), redirect_uri=CALLBACK, scope=" ".join(SCOPE), code_challenge_method="S256"
    ) as client:
        verifier = "v" * 60
        url, state = client.create_authorization_url(
            endpoints["authorization_endpoint"], code_verifier=verifier, nonce="n"
        )
        location = approve(server.auth_url, url)
        token = client.fetch_token(
            endpoints["token_endpoint"], authorization_response=location, state=state, code_verifier=verifier
        )
        keys = KeySet.import_key_set(client.get(endpoints["jwks_uri"], withhold_token=True).json())
        claims = jwt.decode(token["id_token"], keys, algorithms=["ES256"]).claims
        assert (claims["aud"], claims["nonce"], claims["iss"]) == ("evs-gui", "n", endpoints["issuer"])
        assert client.get(endpoints["userinfo_endpoint"]).json()["sub"] == claims["sub"]
        client.refresh_token(endpoints["token_endpoint"])
        told = client.introspect_token(endpoints["introspection_endpoint"], token=client.token["access_token"])
        assert told.json()["active"]
        client.revoke_token(endpoints["revocation_endpoint"], token=client.token["refresh_token"])
        told = client.introspect_token(endpoints["introspection_endpoint"], token=client.token["access_token"])
        assert told.json() == {"active": False}


def test_authlib_gets_client_credentials(server):
    own = (server.secrets / "evs-local.secret").read_text()
    with AuthlibSession("evs-local", own) as client:
        url = f"{server.auth_url}/oauth2/token"
        token = client.fetch_token(url, grant_type="client_credentials", scope="workflows:read")
    assert token["scope"] == "workflows:read"


async def test_our_own_loopback_sign_in_works_against_it(server, approve):
    visits = []

    def open_browser(url):
        def visit():
            httpx.get(approve(server.auth_url, url))

        visits.append(asyncio.ensure_future(asyncio.to_thread(visit)))

    async with OAuthClient(server.auth_url, "evs-cli") as client:
        tokens = await sign_in(client, scope="openid workflows:read", open_browser=open_browser, within_seconds=20)
        await asyncio.gather(*visits)
        assert (await client.userinfo(tokens.access_token))["sub"]
        assert (await client.refresh(tokens.refresh_token)).refresh_token
