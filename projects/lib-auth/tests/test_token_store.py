"""Tokens on a person's machine: private, whole, shared between processes, refreshed by one of them."""

import asyncio
import errno
import json
import stat
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from keyring.errors import KeyringLocked, PasswordDeleteError

from lib_auth.client import OAuthClient
from lib_auth.oauth_error import OAuthError, ServerUnavailable
from lib_auth.proof_key import ProofKey
from lib_auth.sign_in import NotSignedIn, ServiceSignIn, SignIn
from lib_auth.token_store import (
    FileStore,
    KeyringStore,
    StoredTokens,
    StoreUnavailable,
    keyring_is_usable,
    locked,
)
from lib_auth.tokens import TokenSet

ISSUER = "http://127.0.0.1:8001"


def tokens(name, *, seconds=300, refresh_token="refresh-0"):
    expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
    return TokenSet(f"access-{name}", expires_at, frozenset(("openid",)), refresh_token)


class Client:
    """Refreshes as an issuer would: each refresh token works once."""

    def __init__(self):
        self.issuer, self.client_id = ISSUER, "evs-cli"
        self.refreshed = 0
        self.revoked = []
        self.idempotency_keys = []
        self.error = None

    async def refresh(self, refresh_token, *, resource=None, idempotency_key=None):
        self.idempotency_keys.append(idempotency_key)
        if self.error is not None:
            raise self.error
        if refresh_token != f"refresh-{self.refreshed}":
            raise OAuthError("invalid_grant")
        await asyncio.sleep(0.01)
        self.refreshed += 1
        return tokens(f"{resource}-{self.refreshed}", refresh_token=f"refresh-{self.refreshed}")

    async def client_credentials(self, *, scope, resource):
        assert resource is None, "a parameter without a value is no parameter"
        self.refreshed += 1
        return tokens(self.refreshed, seconds=20 if self.refreshed == 1 else 300)

    async def revoke(self, token):
        self.revoked.append(token)


@pytest.fixture
def store(tmp_path):
    return FileStore(tmp_path / "tokens")


def sign_in(store, tmp_path, client=None):
    return SignIn(client or Client(), store, context="local", locks=tmp_path / "locks")


@pytest.mark.parametrize("kept", [b"", b"\xff", b"[]", b'{"issuer": 1}'])
def test_what_is_no_token_file_says_to_sign_in_again(store, tmp_path, kept):
    (tmp_path / "tokens").mkdir()
    path = tmp_path / "tokens" / "local.tokens.json"
    path.touch(mode=0o600)
    path.write_bytes(kept)
    with pytest.raises(StoreUnavailable, match="sign in again"):
        store.load("local")


async def test_kept_tokens_come_back_whole(store, tmp_path):
    await sign_in(store, tmp_path).keep(tokens("a"))
    kept = store.load("local")
    assert kept.refresh_token == "refresh-0"
    assert kept.access[""].access_token == "access-a"
    assert await sign_in(store, tmp_path).access_token() == "access-a"


def test_what_an_answer_leaves_out_stays_and_a_refresh_token_is_kept_once(store, tmp_path):
    first = replace(tokens("a"), id_token="id-0")
    kept = StoredTokens(ISSUER, "evs-cli", "older").with_tokens(first)
    assert (kept.refresh_token, kept.id_token) == ("refresh-0", "id-0")
    kept = kept.with_tokens(tokens("b", refresh_token=None))
    assert (kept.refresh_token, kept.id_token, kept.access[""].access_token) == ("refresh-0", "id-0", "access-b")
    newer = kept.with_tokens(replace(tokens("c", refresh_token="refresh-1"), id_token="id-1"))
    assert (newer.refresh_token, newer.id_token) == ("refresh-1", "id-1")
    store.save("local", newer)
    assert (tmp_path / "tokens" / "local.tokens.json").read_text().count("refresh-1") == 1


def test_files_are_for_their_owner_only(store, tmp_path):
    store.save("local", StoredTokens(ISSUER, "evs-cli", "secret"))
    path = tmp_path / "tokens" / "local.tokens.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["local.tokens.json"]
    path.chmod(0o644)
    with pytest.raises(StoreUnavailable, match="0600"):
        store.load("local")


def test_what_cannot_be_read_says_so(store, tmp_path):
    store.save("local", StoredTokens(ISSUER, "evs-cli", "secret"))
    (tmp_path / "tokens" / "local.tokens.json").write_text("{")
    with pytest.raises(StoreUnavailable, match="sign in again"):
        store.load("local")
    assert store.load("another") is None
    for name in ("../evil", "", "a/b", ".hidden"):
        with pytest.raises(StoreUnavailable, match="context name"):
            store.load(name)


def test_tokens_do_not_show_in_their_text_form():
    text = repr(tokens("a")) + repr(StoredTokens(ISSUER, "evs-cli", "refresh-0", "id-0", {"": tokens("a")}))
    assert "access-a" not in text
    assert "refresh-0" not in text
    assert "id-0" not in text


class Keyring(KeyringBackend):
    """A keyring of the system, as one of its backends has it."""

    priority = 1

    def __init__(self, *, locked=False):
        super().__init__()
        self.kept = {}
        self.locked = locked

    def get_password(self, service, username):
        self._check()
        return self.kept.get((service, username))

    def set_password(self, service, username, password):
        self._check()
        self.kept[service, username] = password

    def delete_password(self, service, username):
        self._check()
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError("there is none")

    def _check(self):
        if self.locked:
            raise KeyringLocked("it is locked")


@pytest.fixture
def use_keyring():
    """Makes a backend the system's keyring."""
    before = keyring.get_keyring()
    yield keyring.set_keyring
    keyring.set_keyring(before)


def test_the_keyring_keeps_a_sign_in_and_forgets_it(use_keyring):
    backend, store = Keyring(), KeyringStore()
    use_keyring(backend)
    assert store.load("local") is None
    kept = StoredTokens(ISSUER, "evs-cli", "refresh-0", access={"": tokens("a")})
    store.save("local", kept)
    assert store.load("local").access[""].access_token == "access-a"
    store.delete("local")
    store.delete("local")  # it was not there: that is what was wanted
    assert backend.kept == {}
    with pytest.raises(StoreUnavailable, match="context name"):
        store.load("../evil")
    backend.locked = True
    for use in (store.load, store.delete, lambda context: store.save(context, kept)):
        with pytest.raises(StoreUnavailable, match="locked"):
            use("local")


def test_a_keyring_that_keeps_nothing_is_none(use_keyring):
    for backend, usable in ((Keyring(), True), (fail.Keyring(), False), (null.Keyring(), False)):
        use_keyring(backend)
        assert keyring_is_usable() is usable


async def test_a_token_about_to_expire_is_refreshed_by_one_of_many(store, tmp_path):
    client = Client()
    await sign_in(store, tmp_path, client).keep(tokens("a", seconds=5))
    found = await asyncio.gather(*(sign_in(store, tmp_path, client).access_token() for _ in range(10)))
    assert set(found) == {"access-None-1"}
    assert client.refreshed == 1
    assert store.load("local").refresh_token == "refresh-1"


async def test_a_rejected_token_is_renewed_once(store, tmp_path):
    client = Client()
    kept = sign_in(store, tmp_path, client)
    await kept.keep(tokens("a"))
    assert await kept.renew("access-a") == "access-None-1"
    assert await kept.renew("access-a") == "access-None-1"  # somebody else has renewed it meanwhile
    assert client.refreshed == 1


async def test_what_is_kept_beside_a_rejected_token_is_no_other_where_it_is_over_or_for_elsewhere(store, tmp_path):
    kept = sign_in(store, tmp_path)
    await kept.keep(tokens("b", seconds=-1))
    assert await kept.renew("access-a") == "access-None-1"
    assert await kept.renew("access-a", "http://admin") == "access-http://admin-2"


async def test_a_token_is_sent_as_what_it_is(store, tmp_path):
    client = OAuthClient(ISSUER, "evs-cli")
    kept = sign_in(store, tmp_path, client)
    for key, scheme in ((ProofKey.generate(), "DPoP"), (None, "Bearer")):
        await kept.keep(tokens("a"), proof_key=key)
        sent = kept.headers(await kept.access_token(), "GET", "http://127.0.0.1:8002/v1/runs")
        assert sent["authorization"] == f"{scheme} access-a"
        assert ("dpop" in sent) is (key is not None)
    await client.close()


async def test_each_resource_has_its_own_token(store, tmp_path):
    kept = sign_in(store, tmp_path)
    await kept.keep(tokens("a"))
    assert await kept.access_token("http://admin") == "access-http://admin-1"
    assert await kept.access_token() == "access-a"


async def test_an_ended_sign_in_is_forgotten(store, tmp_path):
    kept = sign_in(store, tmp_path)
    await kept.keep(tokens("a", seconds=0, refresh_token="refresh-used"))
    for _ in range(2):
        with pytest.raises(NotSignedIn, match="evs auth login"):
            await kept.access_token()
    assert store.load("local") is None


@pytest.mark.parametrize("error", [ServerUnavailable("cut off"), asyncio.CancelledError(), OAuthError("server_error")])
async def test_a_refresh_whose_answer_was_lost_is_asked_for_again_as_the_same_by_whoever_comes_next(
    store, tmp_path, error
):
    client = Client()
    await sign_in(store, tmp_path, client).keep(tokens("a", seconds=0))
    client.error = error
    with pytest.raises(type(error)):
        await sign_in(store, tmp_path, client).access_token()
    client.error = None
    assert await sign_in(store, tmp_path, client).access_token("http://admin") == "access-http://admin-1"
    assert await sign_in(store, tmp_path, client).access_token() == "access-None-2"
    lost, repeated, following = client.idempotency_keys
    assert lost == repeated != following
    assert lost not in repr(StoredTokens(ISSUER, "evs-cli", "refresh-0", idempotency_key=lost))


def test_half_of_what_could_not_be_written_stays_nowhere(store, tmp_path, monkeypatch):
    store.save("local", StoredTokens(ISSUER, "evs-cli", "refresh-0"))

    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("os.fsync", fail)
        with pytest.raises(StoreUnavailable, match="No space left"):
            store.save("local", StoredTokens(ISSUER, "evs-cli", "refresh-1"))
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == ["local.tokens.json"]
    assert store.load("local").refresh_token == "refresh-0"


async def test_a_folder_that_is_none_says_so(tmp_path):
    (tmp_path / "file").touch()
    store = FileStore(tmp_path / "file")
    for use in (partial(store.load, "local"), partial(store.delete, "local")):
        with pytest.raises(StoreUnavailable, match="Not a directory"):
            use()
    for use in (
        sign_in(store, tmp_path).keep(tokens("a")),
        SignIn(Client(), store, context="a", locks=tmp_path / "file").keep(tokens("a")),
    ):
        with pytest.raises(StoreUnavailable, match="cannot be written"):
            await use


async def test_what_cannot_be_kept_is_not_asked_for(store, tmp_path, monkeypatch):
    client = Client()
    kept = sign_in(store, tmp_path, client)
    await kept.keep(tokens("a", seconds=0))

    def fail(*_):
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as full:
        full.setattr(store, "save", fail)
        with pytest.raises(StoreUnavailable):
            await kept.access_token()
    assert client.refreshed == 0, "or its answer would be lost, and with it the sign-in"
    assert await kept.access_token() == "access-None-1"


async def test_tokens_of_another_issuer_are_not_sent(store, tmp_path):
    await sign_in(store, tmp_path).keep(tokens("a"))
    elsewhere = Client()
    elsewhere.issuer = "https://auth.example.org"
    with pytest.raises(NotSignedIn):
        await sign_in(store, tmp_path, elsewhere).access_token()


async def test_nobody_else_is_told_a_refresh_token_to_revoke(store, tmp_path):
    for changed in ("issuer", "client_id"):
        await sign_in(store, tmp_path).keep(tokens("a"))
        another = Client()
        setattr(another, changed, "https://auth.example.org")
        await sign_in(store, tmp_path, another).sign_out()
        assert (another.revoked, store.load("local")) == ([], None), changed


async def test_a_sign_in_is_found_again_where_the_issuers_name_ends_with_a_slash(store, tmp_path):
    client = Client()
    client.issuer = f"{ISSUER}/"  # as the issuer says, once it was asked
    await sign_in(store, tmp_path, client).keep(tokens("a"))
    assert await sign_in(store, tmp_path).access_token() == "access-a"


async def test_signing_out_revokes_and_forgets(store, tmp_path):
    client = Client()
    kept = sign_in(store, tmp_path, client)
    await kept.keep(tokens("a"))
    await kept.sign_out()
    assert client.revoked == ["refresh-0"]
    assert store.load("local") is None
    await kept.sign_out()
    await kept.keep(tokens("a", refresh_token=None))
    await kept.sign_out()
    assert client.revoked == ["refresh-0"], "there was nothing more to revoke"


async def test_a_programs_token_is_renewed_before_it_expires():
    client = Client()
    program = ServiceSignIn(client)
    assert await program.access_token() == "access-1"
    assert await program.access_token() == "access-1"
    program._tokens[""] = tokens("old", seconds=10)
    assert await program.access_token() == "access-2"
    assert await program.renew("access-2") == "access-3", "a service refused it"
    assert await program.renew("access-2") == "access-3", "whoever hears of that later gets what there is"
    assert await ServiceSignIn(client).renew("access-3") == "access-4", "and whoever had none a first one"


HOLDER = """
import asyncio, pathlib, sys
from lib_auth.token_store import locked

async def hold():
    async with locked(pathlib.Path(sys.argv[1]), "local"):
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(hold())
"""


async def test_the_lock_holds_between_processes_and_goes_with_its_holder(tmp_path):
    holding = [sys.executable, "-c", HOLDER, tmp_path]
    with subprocess.Popen(holding, stdout=subprocess.PIPE, text=True) as holder:  # noqa: ASYNC220
        assert await asyncio.to_thread(holder.stdout.readline) == "held\n"
        with pytest.raises(StoreUnavailable, match="another process"):
            async with locked(tmp_path, "local", within_seconds=0.1):
                pass
        holder.kill()
        async with locked(tmp_path, "local", within_seconds=10):
            pass


async def test_a_sign_in_that_was_kept_before_there_were_keys_is_read_and_a_key_is_not_shown(tmp_path):
    store, key = FileStore(tmp_path), ProofKey.generate()
    store.save("local", StoredTokens(ISSUER, "evs-cli", "secret", proof_key=key.to_dict()))
    kept = store.load("local")
    assert kept.proof_key is not None
    assert ProofKey.from_dict(kept.proof_key).thumbprint == key.thumbprint
    assert key.to_dict()["d"] not in repr(kept)
    path = tmp_path / "local.tokens.json"
    old = {name: value for name, value in json.loads(path.read_text()).items() if name != "proof_key"}
    path.write_text(json.dumps(old))
    assert store.load("local").proof_key is None


async def test_a_kept_key_that_is_none_is_told_and_not_taken_for_no_key(tmp_path):
    store = FileStore(tmp_path)
    public = {name: value for name, value in ProofKey.generate().to_dict().items() if name != "d"}
    for broken in ({}, {"kty": "EC"}, public):
        store.save("local", StoredTokens(ISSUER, "evs-cli", "secret", proof_key=broken))
        sign_in = SignIn(OAuthClient(ISSUER, "evs-cli"), store, context="local", locks=tmp_path)
        with pytest.raises(StoreUnavailable, match="sign in again"):
            await sign_in.access_token()
