"""The way to NATS: several servers, TLS, keys; and what is told of settings that do not fit."""

import os

import pytest

from lib_events.nats.access import NatsAccess, nats_access
from lib_events.nats.broker import Broker
from lib_events.settings import Settings, SettingsRejected
from lib_events.testing import wait_until

# nats-py leaves an attempt to connect that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SEED = "SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTC4"
CREDENTIALS = f"""-----BEGIN NATS USER JWT-----
eyJ0
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
{SEED}
------END USER NKEY SEED------
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("EVS_")]:
        monkeypatch.delenv(name)
    return lambda **values: Settings(data=tmp_path, **values)


@pytest.fixture
def seed_file(tmp_path):
    def write(text, *, mode=0o600):
        path = tmp_path / "service.key"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


@pytest.mark.parametrize(
    ("url", "servers", "login"),
    [
        ("nats://a", ["nats://a:4222"], {}),
        ("a:1, b", ["nats://a:1", "nats://b:4222"], {}),
        ("tls://me:p%40ss@a,tls://b:4223", ["tls://a:4222", "tls://b:4223"], {"user": "me", "password": "p@ss"}),
        ("nats://t0ken@[::1]:4222", ["nats://[::1]:4222"], {"token": "t0ken"}),
    ],
)
def test_a_url_names_servers_and_how_to_sign_in_at_all_of_them(url, servers, login):
    options = NatsAccess.parse(url).connect_options()
    assert options.pop("servers") == servers
    assert (options.pop("tls", None) is not None) == url.startswith("tls")
    assert options == login


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "must name servers"),
        ("nats://a,tls://b", "all nats:// or all tls://"),
        ("http://a", "must look like"),
        ("nats://a/path", "must look like"),
        ("nats://a:99999", "ports"),
        ("nats://u:geheim@a,nats://u:other@b", "sign in alike"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secret(url, told):
    with pytest.raises(SettingsRejected, match=told) as refusal:
        NatsAccess.parse(url)
    assert "geheim" not in str(refusal.value)


def test_each_service_has_a_file_it_signs_in_with(settings, seed_file):
    path = seed_file(SEED)
    found = settings(nats_url="tls://a", app_nats_credentials=path, nats_replicas=3)
    assert nats_access(found, "app-svc").connect_options()["nkeys_seed"] == str(path)
    assert nats_access(found, "auth-svc").seed_file is None
    assert nats_access(found, "app-svc").replicas == 3
    assert nats_access(settings(), "app-svc") is None


def test_a_credentials_file_is_one_with_a_token_and_a_seed(settings, seed_file):
    path = seed_file(CREDENTIALS)
    options = nats_access(settings(nats_url="tls://a", auth_nats_credentials=path), "auth-svc").connect_options()
    assert options["user_credentials"] == str(path)
    assert "nkeys_seed" not in options


def test_without_one_the_key_made_in_the_data_folder_is_taken(settings):
    found = settings(nats_url="nats://a")
    found.secrets.mkdir()
    made = found.secrets / "nats-app-svc.nk"
    made.write_text(SEED)
    made.chmod(0o600)
    assert nats_access(found, "app-svc").seed_file == made


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"nats_url": "nats://a", "nats_ca": "ca.pem"}, "must name PEM files"),
        ({"nats_url": "tls://a", "nats_certificate": "c.pem"}, "set together"),
        ({"nats_url": "tls://a", "nats_key": "k.pem"}, "set together"),
        ({"nats_url": "tls://a", "app_nats_credentials": "missing"}, "the key of app-svc"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, values, told):
    with pytest.raises(SettingsRejected, match=told):
        nats_access(settings(**values), "app-svc")


def test_a_file_others_may_read_and_two_ways_to_sign_in_are_refused(settings, seed_file):
    path = seed_file(SEED, mode=0o644)
    with pytest.raises(SettingsRejected, match="readable by its owner only"):
        nats_access(settings(nats_url="nats://a", app_nats_credentials=path), "app-svc")
    path.chmod(0o600)
    with pytest.raises(SettingsRejected, match="one way to sign in"):
        nats_access(settings(nats_url="nats://u:geheim@a", app_nats_credentials=path), "app-svc")


def test_no_secret_is_in_a_repr_or_a_message(settings):
    found = settings(nats_url="nats://me:geheim@a")
    access = nats_access(found, "app-svc")
    assert "geheim" not in repr(found) + repr(access) + str(access)


async def test_tls_is_never_given_up_for_a_server_that_speaks_in_the_clear(fresh_nats_server, caplog):
    url = fresh_nats_server.url.replace("nats://", "tls://")
    async with Broker(url, service="app-svc", seed_file=fresh_nats_server.credentials("app-svc")) as broker:
        await wait_until(lambda: "secure connection required" in caplog.text)
        assert not broker.connected


async def test_a_certificate_nobody_vouches_for_is_refused_and_the_right_one_taken(nats_cluster, settings, caplog):
    values = {"nats_url": nats_cluster.url, "app_nats_credentials": nats_cluster.credentials("app-svc")}
    async with Broker.of_settings(settings(**values), "app-svc") as stranger:
        await wait_until(lambda: "certificate verify failed" in caplog.text, timeout=20)
        assert not stranger.connected
    async with Broker.of_settings(settings(**values, nats_ca=nats_cluster.ca), "app-svc") as broker:
        await wait_until(lambda: broker.connected, timeout=20)
        await broker.ensure_stream()
