"""Decides purely what to start: every service with its command, its environment and how to see that it is ready."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from cli_proj.failure import usage
from cli_proj.supervise.child import ServicePlan
from cli_proj.supervise.ports import ANY_PORT, WantedPort, free_port
from cli_proj.supervise.probe import AliveProbe, FileProbe, HttpProbe
from lib_events.parent_watch import supervised
from lib_events.settings import Settings, SettingsRejected

NATS = "nats"
AUTH = "auth-svc"
APP = "app-svc"
GUI = "gui-proj"
SERVICE_NAME = "OTEL_SERVICE_NAME"
RESOURCE_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"
PORT_OPTIONS = {"gui_port": "--gui-port", "auth_port": "--auth-port", "app_port": "--app-port"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What the person asked for; None means what the settings say."""

    data: Path | None = None
    gui_port: int | None = None
    auth_port: int | None = None
    app_port: int | None = None
    workers: int = 0
    step_processes: int | None = None
    workflows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start, in this order; a stage begins when the one before is ready."""

    settings: Settings
    stages: tuple[tuple[ServicePlan, ...], ...]
    ports: tuple[WantedPort, ...]

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.settings.data


def make_plan(options: UpOptions, *, environment: Mapping[str, str] = os.environ) -> Plan:
    """Decide what to start; raises `CommandFailed` for options that contradict each other."""
    settings = read_settings(options)
    _check_workers(options.workers, settings)
    _check_workflows(settings.workflows)
    shared = _with_own_names(supervised(environment)) | _environment(settings, options)
    stages: list[tuple[ServicePlan, ...]] = []
    if settings.nats_url is None:
        port = free_port()
        shared["EVS_NATS_URL"] = f"nats://127.0.0.1:{port}"
        stages.append((_nats(settings, port, shared),))
    auth = _service(AUTH, "auth_svc", settings.auth_url, _listening(settings, settings.auth_port), shared)
    app = _service(APP, "app_svc", settings.app_url, _listening(settings, settings.app_port), shared)
    gui = _service(GUI, "gui_proj", settings.gui_url, _listening(settings, settings.gui_port), shared)
    workers = [_worker(number, shared) for number in range(1, options.workers + 1)]
    stages.append((auth, app, *workers, gui))
    return Plan(settings, tuple(stages), _ports(settings))


def read_settings(options: UpOptions) -> Settings:
    """Return the settings with the options over them; port 0 becomes a free port."""
    given = {name: getattr(options, name) for name in ("data", *PORT_OPTIONS) if getattr(options, name) is not None}
    if options.workflows:
        given["workflows"] = list(options.workflows)
    for name in PORT_OPTIONS:
        if given.get(name) == ANY_PORT:
            given[name] = free_port()
    try:
        settings = Settings(**given)
    except SettingsRejected as error:
        raise usage(str(error)) from error
    except ValueError as error:
        raise usage(
            _fault(error), hint="evs up --help lists the options; EVS_* and settings.toml count, too"
        ) from error
    return settings.model_copy(update={"data": settings.data.absolute()})


def _with_own_names(environment: Mapping[str, str]) -> dict[str, str]:
    """Let each service have its own name in traces: the one that somebody gave to all is that of the installation."""
    told = dict(environment)
    name = told.pop(SERVICE_NAME, "")
    if name:
        given = told.get(RESOURCE_ATTRIBUTES, "")
        told[RESOURCE_ATTRIBUTES] = ",".join(filter(None, (f"service.namespace={quote(name)}", given)))
    return told


def _environment(settings: Settings, options: UpOptions) -> dict[str, str]:
    """What every service is told: everything is decided here once, so that none decides otherwise."""
    told = {
        "EVS_DATA": str(settings.data),
        "EVS_HOST": settings.host,
        "EVS_GUI_PORT": str(settings.gui_port),
        "EVS_AUTH_PORT": str(settings.auth_port),
        "EVS_APP_PORT": str(settings.app_port),
        "EVS_GUI_URL": settings.gui_url,
        "EVS_AUTH_URL": settings.auth_url,
        "EVS_APP_URL": settings.app_url,
        "PYTHONUNBUFFERED": "1",
    }
    if settings.workflows:
        told["EVS_WORKFLOWS"] = ",".join(_absolute(name) for name in settings.workflows)
    if options.step_processes is not None:
        told["EVS_STEP_PROCESSES"] = str(options.step_processes)
    return told


def _service(name: str, module: str, url: str, listening: str, shared: Mapping[str, str]) -> ServicePlan:
    return ServicePlan(name, (sys.executable, "-m", module), shared, HttpProbe(listening), url)


def _listening(settings: Settings, port: int) -> str:
    """Where the service itself listens: its public URL may be a proxy's."""
    everywhere = settings.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    return f"http://{'127.0.0.1' if everywhere else settings.host}:{port}"


def _nats(settings: Settings, port: int, shared: Mapping[str, str]) -> ServicePlan:
    ready = settings.data / "nats" / "ready.json"
    options = ("--data", str(settings.data), "--port", str(port), "--ready-file", str(ready))
    command = (sys.executable, "-m", "lib_events.nats_server", *options)
    return ServicePlan(NATS, command, shared, FileProbe(ready), f"nats://127.0.0.1:{port}")


def _worker(number: int, shared: Mapping[str, str]) -> ServicePlan:
    command = (sys.executable, "-m", "app_svc", "worker")
    return ServicePlan(f"worker-{number}", command, shared, AliveProbe())


def _ports(settings: Settings) -> tuple[WantedPort, ...]:
    return tuple(WantedPort(option, settings.host, getattr(settings, name)) for name, option in PORT_OPTIONS.items())


def _check_workers(workers: int, settings: Settings) -> None:
    if workers < 0:
        raise usage(f"--workers must be 0 or more, got {workers}")
    if workers and urlsplit(settings.database_url_of("app-svc")).scheme == "sqlite":
        raise usage(
            f"--workers {workers} needs PostgreSQL: a SQLite file has one writer, and app-svc itself is it",
            hint="set EVS_DATABASE_URL=postgresql://…, or leave --workers out: one process does all the work",
        )


def _check_workflows(names: list[str]) -> None:
    for name in names:
        if (name.endswith(".py") or "/" in name) and not Path(name).is_file():
            raise usage(f"--workflows must name a Python file or an importable module, got {name}: no such file")


def _absolute(name: str) -> str:
    """A file by its whole path, because services may run elsewhere; a module by its name."""
    return str(Path(name).absolute()) if name.endswith(".py") else name


def _fault(error: ValueError) -> str:
    """The first fault that pydantic found, in one line."""
    errors: list[dict[str, Any]] = getattr(error, "errors", list)()
    if not errors:
        return str(error)
    field = ".".join(str(part) for part in errors[0]["loc"])
    option = PORT_OPTIONS.get(field, f"EVS_{field.upper()}")
    return f"{option}: {errors[0]['msg']}, got {errors[0].get('input')!r}"
