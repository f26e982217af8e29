import pytest

from app_svc.authorization import guarded_route
from app_svc.permissions import RULES
from lib_auth.access_token import TokenVerifier
from lib_auth.guard import Guard


def test_only_an_operator_may_what_concerns_everybody() -> None:
    for (method, path), rule in RULES.items():
        everybody = rule.all or rule.own
        everybodys = ("/v1/runs:c", "/v1/runs:r", "/v1/dead-letters", "/v1/webhooks/in", "/v1/workflows/{name}/size")
        if path.startswith((*everybodys, "/v1/schedules", "/v1/queues")) or rule.all:
            assert everybody.role == "operator", (method, path)
        else:
            assert everybody.role == "member", (method, path)


def test_reading_takes_a_reading_scope_and_changing_a_changing_one() -> None:
    reading = {"workflows:read", "events:read", "workflows:manage"}
    for (method, path), rule in RULES.items():
        if path.startswith("/v1/webhooks"):  # a way of reading, however it is asked for
            assert rule.own.scope in reading, path
        else:
            assert (rule.own.scope in reading) == (method == "GET") or rule.own.scope == "workflows:manage", path


def test_a_route_without_a_rule_cannot_be_made() -> None:
    verifier = TokenVerifier(issuer="http://issuer", audience="http://app", keys=None, revocations=None)  # type: ignore[arg-type]
    route_class = guarded_route(Guard(verifier, resource_metadata="http://app/metadata"))

    async def endpoint() -> None: ...

    route_class("/v1/workflows", endpoint, methods=["GET"])
    with pytest.raises(LookupError, match=r"GET /v1/forgotten must have a rule"):
        route_class("/v1/forgotten", endpoint, methods=["GET"])
