"""User names: read as they are written, and nobody's looks like another's."""

import pytest
from sqlalchemy import update

from auth_svc.people.user_names import fault, folded, normal
from auth_svc.tables import users

PASSWORD = "correct horse battery staple"
CYRILLIC_A, GREEK_O = "\u0430", "\u03bf"


@pytest.mark.parametrize(
    "name",
    [
        "ada",
        "Ada.Lovelace-1815",
        "ada+test@example.org",
        "jos\u00e9",
        "\u0410\u043d\u043d\u0430",  # Cyrillic alone
        "\u03a3\u03bf\u03c6\u03af\u03b1_7",  # Greek alone
        "\u5c71\u7530\u305f\u308d\u3046Taro",  # Japanese is written with three scripts, and Latin
        "\uae40\ubbfc\uc900-kim",
        "\u0639\u0644\u064a",
    ],
)
def test_a_name_is_written_in_the_letters_of_a_language(name):
    assert fault(normal(name)) is None


@pytest.mark.parametrize(
    "name",
    [
        f"{CYRILLIC_A}dmin",
        f"supp{GREEK_O}rt",
        "admin\u0661",  # a digit of another script
        "\u13aadmin",  # Cherokee
        "\u0410\u043d\u043d\u0430\u03b1",  # Cyrillic and Greek
        "\u16a0\u16a2",  # an alphabet that nobody writes today
    ],
)
def test_a_name_mixes_no_alphabets(name):
    assert "one alphabet" in fault(normal(name))


@pytest.mark.parametrize("hidden", ["\u115f", "\u1160", "\u3164", "\uffa0", "\u200b", "\u00ad", "\u2060", "\ufeff"])
@pytest.mark.parametrize("name", ["admin{}", "ad{}min", "\uae40{}"])
def test_nothing_in_a_name_is_invisible(name, hidden):
    assert fault(normal(name.format(hidden))) is not None


@pytest.mark.parametrize("name", ["", "_ada", "ada lovelace", "a" * 65, "ada\n", "a:b", "<ada>"])
def test_what_is_no_name_says_what_one_is(name):
    assert "1 to 64 letters" in fault(name)


def test_names_that_differ_in_case_or_width_are_one():
    assert folded(" \uff21da ") == folded("ADA") == "ada"
    assert folded("stra\u00dfe") == folded("STRASSE")


async def test_nobody_registers_or_is_renamed_as_a_look_alike(provider):
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    body = {"username": f"{CYRILLIC_A}da", "password": PASSWORD}
    refused = await provider.http.post("/v1/admin/users", json=body, headers=admin)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/username"
    renamed = await provider.http.patch("/v1/admin/users/ada", json={"username": f"ad{CYRILLIC_A}"}, headers=admin)
    assert renamed.status_code == 422


async def test_who_has_a_name_of_before_keeps_it_and_signs_in(provider):
    before = f"ad{CYRILLIC_A}"
    await provider.service.database.transact(
        lambda connection: connection.execute(
            update(users).where(users.c.username == "ada").values(username=before, username_key=folded(before))
        )
    )
    browser = await provider.browser()
    await browser.sign_in(before)
    await browser.open("/account")
    assert "Your name is saved." in (await browser.submit(name="Ada Lovelace")).text
