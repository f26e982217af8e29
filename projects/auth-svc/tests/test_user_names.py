"""User names: read as they are written, and nobody's looks like another's."""

import asyncio
import unicodedata

import pytest
from sqlalchemy import update

from auth_svc.people import accounts
from auth_svc.people.accounts import AccountRejected, NewAccount
from auth_svc.people.user_names import fault, folded, likened, namesakes, normal
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
        "\u0905\u0928\u093f\u0932_\u0915\u0941\u092e\u093e\u0930",  # Hindi: most vowels are marks
        "\u0939\u093f\u0928\u094d\u0926\u0940\u0967",  # with a digit of its script
        "\u0dc1\u0dca\u200d\u0dbb\u0dd3",  # Sinhala: a joiner says how it is written
        "\u0e2a\u0e21\u0e0a\u0e32\u0e22\u0e17\u0e35\u0e48",  # Thai: a vowel and a tone at one letter
        "\u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f",  # Arabic with all its vowels
        "\u05d3\u05b8\u05bc\u05d5\u05b4\u05d3",  # Hebrew with its points
        "\u1ecc\u0301l\u00e1",  # Yoruba: no letter is composed of all three
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


@pytest.mark.parametrize(
    "name",
    [
        "a\u0301\u0301da",  # the same mark twice, of which one is seen
        "z\u0351\u036e\u0363\u0364\u0365a",
        "adm\u0069\u0307n",  # a dot above an i
        "adm\u0069\u0323\u0307n",
        "o\u0338ystein",  # which is how an \u00f8 looks
    ],
)
def test_marks_make_no_other_letter_and_hide_nothing(name):
    assert "marks" in fault(normal(name))


@pytest.mark.parametrize("name", ["\u200dada", "ad\u200da", "\u0915\u200d\u0937", "\u0301ada", "ada.\u0301", "a\u20dd"])
def test_a_mark_or_joiner_stands_where_it_belongs(name):
    assert fault(normal(name)) is not None


@pytest.mark.parametrize("name", ["", "_ada", "ada lovelace", "a" * 65, "ada\n", "a:b", "<ada>"])
def test_what_is_no_name_says_what_one_is(name):
    assert "1 to 64 letters" in fault(name)


def test_names_that_differ_in_case_or_width_are_one():
    assert folded(" \uff21da ") == folded("ADA") == "ada"
    assert folded("stra\u00dfe") == folded("STRASSE")
    assert folded("\u03aa\u0301") == folded("\u0390"), "Greek, of which the capital is not composed"
    assert folded("\u0dc1\u0dca\u200d\u0dbb\u0dd3") == folded("\u0dc1\u0dca\u0dbb\u0dd3")


def test_every_letter_is_folded_as_before_it_had_marks():
    """Keys are in the rows of people who are here."""
    for number in range(0x110000):
        if 0xD800 <= number < 0xE000:
            continue
        before = unicodedata.normalize("NFKC", chr(number).strip()).casefold()
        assert folded(chr(number)) == before, hex(number)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("paypal", "\u0440\u0430\u0443\u0440\u0430\u04cf"),  # Cyrillic alone
        ("PayPal", "\u0420\u0410\u0423\u0440\u0430\u04cf"),
        ("OTTO", "\u039f\u03a4\u03a4\u039f"),  # Greek capitals
        ("\u0441\u043e\u043a\u043e", "coko"),
        ("\u039d\u0399\u039a\u039f", "NIKO"),
        ("\u043e\u0440\u0438\u043e\u043d", None),  # a letter is seen to be Cyrillic
        ("admin", "adm\u0131n"),  # Latin itself
    ],
)
def test_names_of_one_alphabet_that_look_like_anothers_are_namesakes(one, other):
    if other is None:
        assert namesakes(one) == {folded(one)}
    else:
        assert folded(one) in namesakes(other)


async def test_whoever_came_first_has_the_look_of_a_name(provider, subtests):
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    for first, second in (
        ("coco", "\u0441\u043e\u0441\u043e"),
        ("\u0440\u043e\u0440", "pop"),
        ("Tom", "\u03a4\u039f\u039c"),
    ):
        with subtests.test(first):
            made = await provider.http.post("/v1/admin/users", json={"username": first}, headers=admin)
            assert made.status_code == 201
            refused = await provider.http.post("/v1/admin/users", json={"username": second}, headers=admin)
            assert refused.status_code == 422
            renamed = await provider.http.patch("/v1/admin/users/ada", json={"username": second}, headers=admin)
            assert renamed.status_code == 422
            again = {"username": first.upper()}
            assert (await provider.http.patch(f"/v1/admin/users/{first}", json=again, headers=admin)).status_code == 200


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


async def test_of_two_that_look_alike_and_come_at_once_one_is_taken(provider_on_both):
    """No index knows that they do."""
    provider = provider_on_both

    async def register(name):
        try:
            await provider.service.database.transact(accounts.register, NewAccount(name, None), provider.actor())
        except AccountRejected as error:
            return error.detail
        return "made"

    pairs = [(f"coco{number}", f"\u0441\u043e\u0441\u043e{number}") for number in range(20)]
    outcomes = await asyncio.gather(*(register(name) for pair in pairs for name in pair))
    for first, second in zip(outcomes[::2], outcomes[1::2], strict=True):
        assert sorted((first, second)) == [accounts.TAKEN, "made"]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("grace", "grace"),
        ("Grace Hopper", "Grace.Hopper"),
        ("  Miles  O'Brien ", "Miles.O.Brien"),
        ("auth0|5f7c8ec7", "auth0.5f7c8ec7"),
        ("CORP\\grace", "CORP.grace"),
        ("\u5c71\u7530 \u592a\u90ce", "\u5c71\u7530.\u592a\u90ce"),
        ("x" * 100, "x" * 64),
        ("a\u202eb", "a.b"),  # turns letters around
        (f"ad{CYRILLIC_A} grace", None),  # of two alphabets
        ("-- ? --", None),
        ("", None),
    ],
)
def test_what_is_no_name_here_becomes_nearly_that(wanted, name):
    assert likened(wanted) == name
