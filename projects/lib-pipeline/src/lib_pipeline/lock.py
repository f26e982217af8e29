"""What `uv.lock` says: which packages there are, which need which, and what is locked for each."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

type Package = Mapping[str, Any]
type Dependency = Mapping[str, Any]

MEMBER_SOURCES = ("editable", "virtual", "directory")


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The packages of one `uv.lock` by name; a name can have several versions, by platform."""

    packages: Mapping[str, tuple[Package, ...]]
    root_groups: Mapping[str, tuple[Dependency, ...]]
    digests: Mapping[tuple[str, str], str]

    def digest(self, package: Package) -> str:
        """A digest of a package's entry: version, source, what it needs, the hashes of its files."""
        return self.digests[_identity(package)]

    def closure(self, dependencies: Iterable[Dependency]) -> tuple[Package, ...]:
        """All packages that dependencies lead to, for any platform, in order of name and version."""
        found: dict[tuple[str, str], Package] = {}
        seen: set[tuple[str, str]] = set()
        waiting = list(dependencies)
        while waiting:
            dependency = waiting.pop()
            for package in self._candidates(dependency):
                found[_identity(package)] = package
                waiting += _needs(package, dependency.get("extra", ()), seen)
        return tuple(package for _, package in sorted(found.items(), key=lambda item: item[0]))

    def _candidates(self, dependency: Dependency) -> Iterator[Package]:
        for package in self.packages.get(dependency["name"], ()):
            if "version" not in dependency or dependency["version"] == package.get("version"):
                yield package


def _needs(package: Package, extras: Iterable[str], seen: set[tuple[str, str]]) -> Iterator[Dependency]:
    """What a package needs, and what its extras add; each once."""
    identity = " ".join(_identity(package))
    if (identity, "") not in seen:
        seen.add((identity, ""))
        yield from package.get("dependencies", ())
    for extra in extras:
        if (identity, extra) not in seen:
            seen.add((identity, extra))
            yield from package.get("optional-dependencies", {}).get(extra, ())


def read_lock(document: Mapping[str, Any]) -> Lock:
    """The lock of a parsed `uv.lock`; raises `KeyError` or `TypeError` where it has another shape."""
    packages: dict[str, tuple[Package, ...]] = {}
    for package in document.get("package", ()):
        packages[package["name"]] = (*packages.get(package["name"], ()), package)
    digests = {_identity(package): _digest(package) for package in document.get("package", ())}
    groups = document.get("manifest", {}).get("dependency-groups", {})
    return Lock(
        packages=packages,
        root_groups={name: tuple(_names(group)) for name, group in groups.items()},
        digests=digests,
    )


def _identity(package: Package) -> tuple[str, str]:
    """Name and version; a name can be there in several, and from several sources."""
    return package["name"], f"{package.get('version', '')} {sorted(package.get('source', {}).items())}"


def entry_text(package: Package) -> str:
    """A package's entry as a text, the same for the same entry."""
    return json.dumps(package, sort_keys=True, default=str)


def _digest(package: Package) -> str:
    return hashlib.sha256(entry_text(package).encode()).hexdigest()


def _names(group: Iterable[Dependency]) -> Iterator[Dependency]:
    """The manifest writes extras in the plural, as a requirement does; dependencies write them in the singular."""
    for entry in group:
        yield {"name": entry["name"], "extra": tuple(entry.get("extras", ()))}


def path_of(package: Package) -> str | None:
    """The folder of a member below the root; None for what comes from elsewhere."""
    source = package.get("source", {})
    return next((str(source[kind]) for kind in MEMBER_SOURCES if kind in source), None)
