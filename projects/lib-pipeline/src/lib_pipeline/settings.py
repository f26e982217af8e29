"""What a workspace says in `[tool.pipeline]`, what the environment says, and what of the environment tasks may see."""

import fnmatch
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_pipeline.errors import PipelineError

# These reach the tasks and are part of every key: programs behave by them.
KEYED = ("CI", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SOURCE_DATE_EPOCH")
# These reach the tasks and are in no key: they say where things are, not what they do.
PASSED = (
    *("HOME", "PATH", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "DISPLAY", "XDG_*"),
    *("SSL_CERT_*", "NIX_SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "npm_config_*", "NPM_CONFIG_*", "*_proxy", "*_PROXY"),
    *("UV_INDEX*", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_KEYRING_PROVIDER", "UV_CACHE_DIR"),
    *("UV_CONFIG_FILE", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "UV_OFFLINE", "UV_LINK_MODE", "UV_CONCURRENT_*"),
    *("UV_HTTP_*", "UV_INSECURE_HOST", "UV_PYTHON_INSTALL_DIR", "UV_PYTHON_DOWNLOADS", "UV_PYTHON_PREFERENCE"),
)
KNOWN = frozenset(("environment", "programs", "inputs", "apart"))


class SettingsUnclear(PipelineError):
    """`[tool.pipeline]` holds what the pipeline does not understand."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The optional table `[tool.pipeline]` of the root's `pyproject.toml`.

    `environment`: variables that tasks may see; their values are in every key.
    `programs`: programs whose presence changes what tasks do; whether they are there is in every key.
    `inputs`: patterns of files that git ignores and tasks read, such as `.env`.
    `apart`: patterns of files outside members that no member's tests read.
    """

    environment: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    def is_apart(self, path: str) -> bool:
        """Whether a file outside members is read by no member's tests."""
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in self.apart)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The environment of the tasks: all they see, and the part that is in the keys."""

    variables: Mapping[str, str]
    keyed: Mapping[str, str] = field(default_factory=dict)


def read_settings(table: Mapping[str, Any]) -> Settings:
    """The settings in a `[tool.pipeline]`; raises `SettingsUnclear` for a word nobody knows."""
    unknown = table.keys() - KNOWN
    if unknown:
        raise SettingsUnclear(
            f"[tool.pipeline] must have keys of {', '.join(sorted(KNOWN))}, got {', '.join(sorted(unknown))}; "
            "take it out"
        )
    for name, value in table.items():
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise SettingsUnclear(f"[tool.pipeline] {name} must be a list of texts, got {value!r}; write it as one")
    return Settings(**{name: tuple(value) for name, value in table.items()})


def surroundings(settings: Settings, environment: Mapping[str, str]) -> Surroundings:
    """What tasks may see of an environment. Everything else is kept from them, so that no key can miss it."""
    names = (*KEYED, *settings.environment)
    keyed = {name: environment[name] for name in sorted(names) if name in environment}
    programs = {f"program {name}": str(shutil.which(name) is not None) for name in sorted(settings.programs)}
    passed = {name: value for name, value in environment.items() if _matches(name, PASSED)}
    return Surroundings(variables=passed | keyed, keyed=keyed | programs)


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where results, environments and Turborepo are kept: `PIPELINE_CACHE_DIR`, or the user's cache folder."""
    if chosen := environment.get("PIPELINE_CACHE_DIR"):
        return Path(chosen).absolute()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "uv-pipeline"


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
