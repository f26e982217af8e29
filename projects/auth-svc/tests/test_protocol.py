"""A decision over rows, by itself."""

import base64
import gc
import weakref

import pytest

from auth_svc import opaque
from auth_svc.clients.client import CREDENTIALS, Client
from auth_svc.protocol.protocol import Protocol
from auth_svc.protocol.request import ProtocolRequest
from auth_svc.protocol.token_rows import TokenRows

SECRET = "a secret of the test"
BASIC = f"Basic {base64.b64encode(f'robot:{SECRET}'.encode()).decode()}"


@pytest.fixture
def no_collector():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(("authorization", "status"), [(BASIC, 200), ("Basic cm9ib3Q6d3Jvbmc=", 401)])
async def test_a_decision_is_gone_with_its_request(provider, no_collector, authorization, status):
    digest, scopes = opaque.digest(SECRET), frozenset(("workflows:read",))
    robot = Client(id="robot", name="Robot", secret_digest=digest, grant_types=(CREDENTIALS,), scopes=scopes)
    protocol = Protocol(provider.service.issuer, TokenRows(client=robot), provider.actor().at)
    request = ProtocolRequest("POST", [("grant_type", CREDENTIALS)], authorization)
    assert protocol.token(request).status == status
    gone = weakref.ref(protocol)
    del protocol, request
    assert gone() is None
