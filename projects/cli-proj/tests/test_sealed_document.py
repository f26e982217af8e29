"""Documents that only whoever has the passphrase reads."""

import base64
import json
import unicodedata

import pytest

from cli_proj import sealed_document
from cli_proj.failure import CommandFailed

PHRASE = "caf\u00e9 au lait, s'il vous pla\u00eet"


def test_what_was_sealed_is_opened_by_its_passphrase_however_it_is_typed():
    document = json.loads(sealed_document.seal("the text", PHRASE))
    assert sealed_document.is_sealed(document)
    assert sealed_document.unseal(document, unicodedata.normalize("NFD", PHRASE)) == "the text"


def test_two_documents_of_one_passphrase_have_keys_of_their_own():
    first, second = (json.loads(sealed_document.seal("the text", PHRASE)) for _ in range(2))
    assert first["salt"] != second["salt"]
    with pytest.raises(CommandFailed, match="cannot be opened"):
        sealed_document.unseal(first | {"salt": second["salt"]}, PHRASE)


@pytest.mark.parametrize(
    "change",
    [
        {"sealed": base64.b64encode(b"x" * 40).decode()},
        {"sealed": ""},
        {"sealed": "not base64"},
        {"sealed": None},
        {"salt": 1},
    ],
)
def test_what_was_changed_is_not_opened(change):
    document = json.loads(sealed_document.seal("the text", PHRASE)) | change
    with pytest.raises(CommandFailed, match="cannot be opened"):
        sealed_document.unseal(document, PHRASE)


def test_a_document_of_a_later_release_says_so():
    with pytest.raises(CommandFailed, match="later release"):
        sealed_document.unseal({"format": "evs-sealed", "version": 2}, PHRASE)


@pytest.mark.parametrize("document", [None, [], {}, {"format": "evs-auth"}, "evs-sealed"])
def test_other_documents_are_not_sealed(document):
    assert not sealed_document.is_sealed(document)
