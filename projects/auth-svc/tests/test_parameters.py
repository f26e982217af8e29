"""What a request may carry: texts that every database keeps, numbers that are numbers, URLs that are URLs."""

import pytest

from auth_svc.parameters import ParametersRejected, parse

PASSWORD = "correct horse battery staple"


@pytest.mark.parametrize("encoded", ["name=%00", "%00=x", "x=%ff", "x=\xfc".encode("latin-1")])
def test_parameters_are_form_encoded_utf_8_without_nul(encoded):
    with pytest.raises(ParametersRejected):
        parse(encoded)


async def test_a_nul_is_refused_wherever_it_comes_from(provider_on_both):
    provider = provider_on_both
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    ada = {"authorization": f"Bearer {(await provider.tokens())['access_token']}"}
    assert (await provider.authorize(await provider.browser(), nonce="\0")).status_code == 400
    assert (await (await provider.browser()).sign_in("ad\0a")).status_code == 400
    assert (await provider.http.get("/login?next=/oauth2/authorize%3Fclient_id%3D%2500")).status_code == 400
    assert (await provider.token(("evs\0", "x"), grant_type="client_credentials")).status_code == 401
    asked = await provider.http.post("/v1/access-requests", json={"role": "x", "reason": "\0"}, headers=ada)
    assert asked.status_code == 422
    for path in ("/v1/admin/users/%00", "/v1/admin/users?cursor=%00", "/v1/admin/clients?cursor=%00"):
        assert (await provider.http.get(path, headers=admin)).status_code == 422
    made = await provider.http.post("/v1/admin/clients", json={"id": "new", "name": "\0"}, headers=admin)
    assert made.status_code == 422


async def test_a_number_nobody_can_mean_is_refused(provider_on_both):
    provider = provider_on_both
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    assert (await provider.http.get(f"/v1/admin/audit?cursor={2**63}", headers=admin)).status_code == 422
    resource_server = ("evs-app", provider.secret_of("evs-app"))
    for wait in ("9" * 5000, "-1", "1.5", "\u0663"):
        refused = await provider.http.get("/v1/revocations", params={"wait": wait}, auth=resource_server)
        assert refused.status_code == 400, wait


async def test_a_way_on_that_is_no_url_leads_to_the_account(provider):
    browser = await provider.browser()
    assert (await browser.sign_in("ada", at="/login?next=//%5B")).request.url.path == "/account"
