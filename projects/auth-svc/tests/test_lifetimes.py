"""How long things live is what the guide says."""

from pathlib import Path

from auth_svc.clients.client import ACCESS_TOKEN_SECONDS
from auth_svc.grants.code import CODE_SECONDS
from auth_svc.grants.delegating import DAY_SECONDS, DELEGATION_SECONDS, LONGEST_DELEGATION_SECONDS
from auth_svc.grants.device import DEVICE_SECONDS
from auth_svc.people.sessions import LIFETIME_SECONDS
from auth_svc.protocol.families import LONGEST_ACCESS_SECONDS
from auth_svc.protocol.issuer import ID_TOKEN_SECONDS
from auth_svc.protocol.protocol import REFRESH_SECONDS
from auth_svc.protocol.pushed_requests import UNTIL_BEGUN_SECONDS, UNTIL_DONE_SECONDS

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "sign-in.md"
MINUTE, HOUR = 60, 3600
LIVES = {
    "a sign-in in a browser": f"{LIFETIME_SECONDS // HOUR} hours",
    "an authorization code": f"{CODE_SECONDS} seconds",
    "a pushed request": f"{UNTIL_BEGUN_SECONDS} seconds until the browser comes with it, "
    f"then {UNTIL_DONE_SECONDS // MINUTE} minutes",
    "a device's code": f"{DEVICE_SECONDS // MINUTE} minutes",
    "an access token": f"{ACCESS_TOKEN_SECONDS} seconds",
    "an ID token": f"{ID_TOKEN_SECONDS} seconds",
    "a refresh token": f"{REFRESH_SECONDS // DAY_SECONDS} days",
    "a [delegation](acting-for-people.md)": f"{DELEGATION_SECONDS // DAY_SECONDS} days",
}


def test_the_guide_says_how_long_things_live():
    told = GUIDE.read_text()
    for thing, time in LIVES.items():
        assert f"| {thing} | {time}" in told
    assert f"the resource says, {LONGEST_ACCESS_SECONDS} at most" in told
    assert f"says otherwise, {LONGEST_DELEGATION_SECONDS // DAY_SECONDS} at most" in told
