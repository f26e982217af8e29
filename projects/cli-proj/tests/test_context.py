"""Which product a command talks to."""

import json

import pytest

from cli_proj.config import Config, Server, load_config, save_config
from cli_proj.context import Context, find_data, is_loopback, resolve_context
from cli_proj.failure import CommandFailed
from cli_proj.identity import acts_as_program
from lib_events.secret_file import write_secret

URLS = {"auth_url": "http://127.0.0.1:1", "app_url": "http://127.0.0.1:2", "gui_url": "http://127.0.0.1:3"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in ("EVS_DATA", "EVS_APP_URL", "EVS_AUTH_URL", "EVS_TOKEN", "EVS_CLIENT_ID", "EVS_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def leave(data, urls=URLS):
    write_secret(data / "context.json", json.dumps(urls))
    write_secret(data / "secrets" / "evs-local.secret", "s3cret")


def test_data_is_found_upward_from_the_working_folder_like_git(tmp_path):
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / ".evs").mkdir()
    assert find_data(below) == tmp_path / ".evs"


def test_evs_data_names_the_folder_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("EVS_DATA", str(tmp_path / "elsewhere"))
    assert find_data(tmp_path) == tmp_path / "elsewhere"


def test_the_local_context_brings_the_credentials_that_up_left(tmp_path):
    leave(tmp_path / ".evs")
    context = resolve_context()
    assert (context.name, context.client_id, context.client_secret) == ("local", "evs-local", "s3cret")
    assert "s3cret" not in repr(context)


def test_the_local_credentials_are_not_used_beyond_loopback(tmp_path):
    leave(tmp_path / ".evs", URLS | {"auth_url": "https://auth.example.org"})
    assert resolve_context().client_id is None


@pytest.mark.parametrize("name", ["context.json", "secrets/evs-local.secret"])
def test_a_context_that_others_can_read_is_refused(tmp_path, name):
    leave(tmp_path / ".evs")
    (tmp_path / ".evs" / name).chmod(0o644)
    with pytest.raises(CommandFailed, match="readable by its owner only") as raised:
        resolve_context()
    assert raised.value.code == 4


def test_a_stopped_product_is_not_found_and_the_hint_starts_it(tmp_path):
    (tmp_path / ".evs").mkdir()
    with pytest.raises(CommandFailed) as raised:
        resolve_context()
    assert raised.value.code == 3
    assert raised.value.hint.startswith("evs up")


def test_the_urls_of_the_environment_make_a_context_and_its_token_wins(monkeypatch, tmp_path):
    leave(tmp_path / ".evs")
    monkeypatch.setenv("EVS_APP_URL", "https://app.example.org/")
    monkeypatch.setenv("EVS_TOKEN", "t0ken")
    context = resolve_context()
    assert (context.name, context.app_url, context.token) == ("environment", "https://app.example.org", "t0ken")


def test_a_client_id_without_its_secret_is_refused(monkeypatch, tmp_path):
    leave(tmp_path / ".evs")
    monkeypatch.setenv("EVS_CLIENT_ID", "robot")
    with pytest.raises(CommandFailed, match="together"):
        resolve_context()


def test_a_named_context_is_used_when_it_is_current_or_asked_for(tmp_path):
    leave(tmp_path / ".evs")
    server = Server("https://auth.example.org", "https://app.example.org", "https://gui.example.org")
    save_config(Config(current="team").with_server("team", server))
    assert resolve_context().app_url == "https://app.example.org"
    assert resolve_context("local").app_url == URLS["app_url"]
    assert (tmp_path / "config" / "evs" / "config.json").stat().st_mode & 0o777 == 0o600


def test_an_unknown_context_is_refused_with_the_known_ones():
    with pytest.raises(CommandFailed, match="known: local"):
        resolve_context("tema")


def test_a_broken_configuration_is_named(tmp_path):
    path = tmp_path / "config" / "evs" / "config.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(CommandFailed, match=r"config\.json"):
        load_config()


def test_two_products_on_one_machine_keep_their_sign_ins_apart(tmp_path):
    one = Context(name="local", data=tmp_path / "a", **URLS)
    other = Context(name="local", data=tmp_path / "b", **URLS)
    assert one.sign_in_name != other.sign_in_name


def test_this_machines_client_acts_until_a_person_has_signed_in_and_a_given_program_acts_always(monkeypatch, tmp_path):
    leave(tmp_path / ".evs")
    context = resolve_context()
    assert acts_as_program(context)
    save_config(Config().with_sign_in(context.sign_in_name, "file"))
    assert not acts_as_program(context)
    monkeypatch.setenv("EVS_CLIENT_ID", "robot")
    monkeypatch.setenv("EVS_CLIENT_SECRET", "s3cret")
    assert acts_as_program(resolve_context())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8001", True),
        ("http://[::1]:8001", True),
        ("http://localhost", True),
        ("http://127.0.0.1.example.org", False),
        ("https://auth.example.org", False),
        ("http://10.0.0.1", False),
    ],
)
def test_loopback_is_an_address_not_a_look_alike(url, expected):
    assert is_loopback(url) is expected


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example.org",
        "ftp://127.0.0.1",
        "app.example.org",
        "http://127.0.0.1.evil.org",
        "http://[::1",
        "http://[::1]:x",
        "https://",
    ],
)
def test_tokens_are_not_sent_where_they_could_be_read_on_the_way(url, monkeypatch):
    monkeypatch.setenv("EVS_APP_URL", url)
    with pytest.raises(CommandFailed, match="EVS_APP_URL must be https") as raised:
        resolve_context()
    assert raised.value.code == 2
