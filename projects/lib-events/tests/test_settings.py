import pytest

from lib_events.settings import Settings, SettingsRejected, is_data_folder


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("EVS_DATA", "EVS_SETTINGS", "EVS_DATABASE_URL", "EVS_APP_PORT", "EVS_WORKFLOWS"):
        monkeypatch.delenv(name, raising=False)


def test_flags_win_over_the_environment_and_that_over_the_file(monkeypatch, tmp_path):
    (tmp_path / "settings.toml").write_text('app_port = 1\nauth_port = 1\ngui_port = 1\ncors_origins = ["https://a"]\n')
    monkeypatch.setenv("EVS_DATA", str(tmp_path))
    monkeypatch.setenv("EVS_APP_PORT", "2")
    monkeypatch.setenv("EVS_AUTH_PORT", "2")
    settings = Settings(app_port=3)
    assert (settings.app_port, settings.auth_port, settings.gui_port) == (3, 2, 1)
    assert settings.cors_origins == ["https://a"]


def test_the_settings_file_may_be_anywhere(monkeypatch, tmp_path):
    (tmp_path / "other.toml").write_text('auth_url = "https://auth.example/"\n')
    monkeypatch.setenv("EVS_SETTINGS", str(tmp_path / "other.toml"))
    assert Settings().auth_url == "https://auth.example"


def test_urls_follow_the_ports():
    assert Settings(app_port=9002).app_url == "http://127.0.0.1:9002"


def test_lists_are_separated_by_commas_in_the_environment(monkeypatch):
    monkeypatch.setenv("EVS_WORKFLOWS", "flows.py, team.flows")
    assert Settings().workflows == ["flows.py", "team.flows"]


def test_each_service_has_its_own_database(tmp_path):
    settings = Settings(data=tmp_path)
    assert settings.database_url_of("auth-svc") == f"sqlite:///{tmp_path}/auth.db"
    shared = Settings(
        database_url="postgresql://evs:pw@db/evs?sslmode=require", auth_database_url="postgresql://auth@db/a"
    )
    assert shared.database_url_of("app-svc") == "postgresql://evs:pw@db/evs?sslmode=require&schema=evs_app"
    assert shared.database_url_of("auth-svc") == "postgresql://auth@db/a"


def test_services_never_share_a_sqlite_file():
    with pytest.raises(SettingsRejected, match="EVS_AUTH_DATABASE_URL"):
        Settings(database_url="sqlite:///one.db").database_url_of("app-svc")


def test_passwords_are_not_in_the_repr():
    assert "geheim" not in repr(Settings(database_url="postgresql://u:geheim@h/d", nats_url="nats://u:geheim@h"))


def test_the_data_folder_is_private_and_invisible_to_git(tmp_path):
    settings = Settings(data=tmp_path / "data")
    settings.prepare_data()
    settings.data.chmod(0o755)
    settings.prepare_data()
    assert settings.data.stat().st_mode & 0o777 == 0o700
    assert settings.secrets.stat().st_mode & 0o777 == 0o700
    assert (settings.data / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("ignored", [None, "*.pyc\n"], ids=["a folder", "a repository"])
def test_somebody_elses_folder_is_refused_as_data(tmp_path, ignored):
    (tmp_path / "thesis.txt").write_text("precious")
    if ignored:
        (tmp_path / ".gitignore").write_text(ignored)
    with pytest.raises(SettingsRejected, match=r"thesis\.txt"):
        Settings(data=tmp_path).prepare_data()
    assert not is_data_folder(tmp_path)


def test_a_value_that_cannot_be_is_refused_under_its_name_and_not_repeated(monkeypatch):
    monkeypatch.setenv("EVS_NATS_REPLICAS", "geheim")
    with pytest.raises(SettingsRejected) as refused:
        Settings.read()
    assert str(refused.value).startswith("EVS_NATS_REPLICAS is not right: Input should be a valid integer")
    assert "geheim" not in str(refused.value)


def test_origins_are_kept_as_browsers_say_them(monkeypatch):
    monkeypatch.setenv(
        "EVS_CORS_ORIGINS",
        "https://Shop.Example/, http://127.0.0.1:3000, https://a.example:443, http://[::1]:80, http://b.example:",
    )
    said = ["https://shop.example", "http://127.0.0.1:3000", "https://a.example", "http://[::1]", "http://b.example"]
    assert Settings.read().cors_origins == said


@pytest.mark.parametrize(
    "given",
    [
        '["https://shop.example"]',
        "*",
        "shop.example",
        "https://shop.example/app",
        "https://a@shop.example",
        "http://a:b",
    ],
)
def test_what_is_no_origin_is_refused_with_what_to_write(monkeypatch, given):
    monkeypatch.setenv("EVS_CORS_ORIGINS", given)
    with pytest.raises(
        SettingsRejected, match=r"^EVS_CORS_ORIGINS is not right: .*https://shop\.example, without a path"
    ):
        Settings.read()


def test_a_settings_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "settings.toml").write_text("workflows = [")
    with pytest.raises(SettingsRejected, match=r"must be TOML, got .*settings\.toml: .*; correct or remove it"):
        Settings.read(data=tmp_path)


def test_a_misspelt_name_in_the_settings_file_is_refused_with_the_one_that_was_meant(tmp_path, subtests):
    meant = {
        "run_retention_day": "run_retention_days",
        "EVS_APP_PORT": "app_port",
        "cors-origins": "cors_origins",
        "Database_URL": "database_url",
    }
    for name, known in meant.items():
        with subtests.test(name):
            (tmp_path / "settings.toml").write_text(f'"{name}" = 1\ngui_port = 1\n')
            with pytest.raises(
                SettingsRejected, match=rf"got {name} \(meant: {known}\?\) in .*settings\.toml; correct"
            ):
                Settings.read(data=tmp_path)


def test_what_another_service_is_told_in_the_shared_file_is_none_of_ours(tmp_path, caplog):
    (tmp_path / "settings.toml").write_text('registration = "open"\nlease_seconds = 5\nbilling_url = "https://b"\n')
    Settings.read(data=tmp_path)
    assert "says billing_url, which this service does not know" in caplog.text
    assert "lease_seconds" not in caplog.text
