"""The AppService beside the real AuthService and broker: sign-in, choreography, an approval across services."""

from typing import Any

from installation import PASSWORD, Installation, Person

from lib_events.secret_file import read_secret
from lib_events.testing import wait_until


async def test_a_registration_is_welcomed_and_a_role_is_asked_for_decided_and_granted(
    installation: Installation,
) -> None:
    administering = {"scope": "openid admin", "resource": f"{installation.auth_url}/v1/admin"}
    administrator = Person(installation, (await installation.tokens("admin", **administering))["access_token"])
    user = {"username": "ulla", "email": "ulla@example.org", "password": PASSWORD}
    made = await administrator.post("/v1/admin/users", user, at=installation.auth_url)
    assert made.status_code == 201, made.text

    admin, ulla = await installation.person("admin"), await installation.person("ulla")

    async def welcomed() -> Any:
        found = (await admin.get("/v1/events", types="welcome.message.sent")).json()["items"]
        return [event for event in found if event["data"]["username"] == "ulla"]

    await wait_until(welcomed, timeout=20)

    asked = await ulla.post("/v1/access-requests", {"role": "operator", "reason": "on call"}, at=installation.auth_url)
    assert asked.status_code == 201, asked.text

    async def approval() -> Any:
        items = (await admin.get("/v1/approvals", status="pending")).json()["items"]
        return items[0] if items else None

    waiting = await wait_until(approval, timeout=20)
    assert (await ulla.post(f"/v1/approvals/{waiting['id']}/decision", {"approved": True})).status_code == 404
    decided = await admin.post(f"/v1/approvals/{waiting['id']}/decision", {"approved": True})
    assert decided.status_code == 200, decided.text

    async def ended() -> Any:
        run = (await ulla.get(f"/v1/runs/{waiting['run']}")).json()
        return run if run.get("ended_at") else None

    run = await wait_until(ended, timeout=20)
    assert (run["status"], run["output"]["outcome"], run["output"]["role"]) == ("completed", "granted", "operator")
    promoted = await installation.person("ulla")
    everybodys = (await promoted.get("/v1/events")).json()["items"]
    assert len(everybodys) > len((await ulla.get("/v1/events")).json()["items"])


async def test_a_revoked_token_of_the_authservice_is_refused_within_a_second(installation: Installation) -> None:
    tokens = await installation.tokens("admin")
    person = Person(installation, tokens["access_token"])
    assert (await person.get("/v1/workflows")).status_code == 200
    secret = read_secret(installation.data / "secrets" / "evs-gui.secret")
    revoke = {"token": tokens["refresh_token"]}
    url = f"{installation.auth_url}/oauth2/revoke"
    assert (await installation.http.post(url, data=revoke, auth=("evs-gui", secret))).status_code == 200

    async def is_refused() -> bool:
        return (await person.get("/v1/workflows")).status_code == 401

    await wait_until(is_refused, timeout=1)
