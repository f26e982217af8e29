"""Passwords that guessers try first are refused, with what to do; everything else that is long enough is fine."""

import hashlib

import pytest

from auth_svc.people import password_policy
from auth_svc.people.password_policy import (
    LONGEST_LINE,
    BreachedPasswords,
    PasswordPolicy,
    PasswordRejected,
    common_passwords,
)
from lib_events.settings import SettingsRejected

POLICY = PasswordPolicy()


@pytest.mark.parametrize(
    ("password", "text"),
    [
        ("short", "at least 12 characters"),
        ("x" * 257, "at most 256 characters"),
        ("passwordpassword", "Many people use"),
        ("Password1234!", "Many people use"),
        ("SUNSHINE-20251125", "Many people use"),
        ("aaaaaaaaaaaaaaaa", "Many people use"),
        ("abababababababab", "Many people use"),
        ("123456789012", "Many people use"),
        ("abcdefghijklmnop", "Many people use"),
        ("ada.lovelace.1815", "a name of yours"),
        ("LovelaceLovelace", "Many people use" if b"\nlovelace\n" in common_passwords() else "a name of yours"),
        ("event-based-svcs", "a name of yours"),
    ],
)
def test_what_guessers_try_first_is_refused_with_a_reason(password, text):
    with pytest.raises(PasswordRejected, match=text):
        POLICY.check(password, ("ada.lovelace", "lovelace@navy.test"))


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "only lower case letters",
        "492837465019",
        "ada is my name and I like tea",
        "パスワードは長いほうが良いです",
        "!@#$%^&*()_+|}{",
    ],
)
def test_nothing_else_is_asked_of_a_password(password):
    POLICY.check(password, ("ada", "ada@home.test"))


def test_the_list_costs_little_memory():
    assert common_passwords().count(b"\n") > 25_000
    assert len(common_passwords()) < 500_000


@pytest.fixture
def breached(tmp_path):
    """A list as it is published: hashes in order, with how often each was seen."""
    hashes = sorted(hashlib.sha1(f"secret number {number}".encode()).hexdigest().upper() for number in range(500))
    path = tmp_path / "pwned.txt"
    path.write_bytes(b"".join(f"{found}:{number * 7919}\r\n".encode() for number, found in enumerate(hashes)))
    return path


def test_every_password_of_the_breached_list_is_found_and_no_other(breached):
    listed = BreachedPasswords(breached)
    assert all(f"secret number {number}" in listed for number in range(500))
    assert not any(f"secret number {number}" in listed for number in range(500, 1500))
    with pytest.raises(PasswordRejected, match="known from a break-in"):
        PasswordPolicy(breached).check("secret number 7")
    PasswordPolicy(breached).check("secret number 700")


def test_a_lookup_reads_a_few_lines_only(breached, monkeypatch):
    read = []
    line_after = password_policy._line_after
    monkeypatch.setattr(
        password_policy, "_line_after", lambda file, position: read.append(position) or line_after(file, position)
    )
    assert "nothing of the kind" not in BreachedPasswords(breached)
    assert len(read) <= (500 * LONGEST_LINE).bit_length()


@pytest.mark.parametrize("content", [None, b"", b"password\n", b"ABCDEF:1\n"])
def test_a_file_that_is_no_such_list_is_refused_at_the_start(tmp_path, content):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsRejected, match="EVS_BREACHED_PASSWORDS must be a file of SHA-1 hashes"):
        PasswordPolicy(path)
