"""The forms of pages: each is taken from the page that this browser was given, and from nowhere else."""

from auth_svc.routes import TABLE

ISSUER = "http://127.0.0.1:8001"
FORMS = [path for method, path, _ in TABLE if method == "POST" and not path.startswith("/oauth2/")]


async def test_no_form_is_taken_from_another_site_or_with_another_browsers_token(provider, subtests):
    browser, other = await provider.browser(), await provider.browser()
    tokens = [
        (await each.sign_in("ada")).text.split('name="csrf" value="')[1].split('"')[0] for each in (browser, other)
    ]
    assert len(FORMS) > 20
    for path in FORMS:
        for origin, token, why in (
            ("https://other.test", tokens[0], "That form did not come from here"),
            ("null", tokens[0], "That form did not come from here"),
            (ISSUER, tokens[1], "That form is out of date"),
        ):
            with subtests.test(path, why=why):
                form = {"csrf": token, "username": "ada", "email": "ada@home.test"}
                answer = await browser.http.post(path.format(upstream="x"), data=form, headers={"origin": origin})
                assert (answer.status_code, why in answer.text) == (403, True), answer.text
    assert (await browser.open("/account")).url.path == "/account", "nothing came of any of them"
