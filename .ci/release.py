"""What a tag makes of the repository, in CI or by hand: `release.py notes|versions [vX.Y.Z]`.

`notes` prints the tag's section of CHANGELOG.md; `versions` gives every member the tag's version, has members ask for
one another in that very version, and locks anew. Without a tag it is the one of the commit that is checked out.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

TAG = re.compile(r"v(\d+\.\d+\.\d+)")
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


class ReleaseUnclear(Exception):
    """The repository is not what a release is made of; nothing was written."""


def version_of(tag: str) -> str:
    """`1.2.3` of `v1.2.3`."""
    found = TAG.fullmatch(tag)
    if found is None:
        raise ReleaseUnclear(f"A release's tag must be vX.Y.Z, got {tag or 'none'}; name one, or tag this commit")
    return found[1]


def checked_out_tag(root: Path) -> str:
    """The tag of the commit that is checked out, or an empty text."""
    described = ("git", "describe", "--tags", "--exact-match", "--match", "v*")
    return subprocess.run(described, cwd=root, capture_output=True, text=True, check=False).stdout.strip()


def notes(changelog: str, version: str) -> str:
    """The text under `## VERSION - DATE`."""
    _, *parts = HEADING.split(changelog)
    sections = dict(zip((heading.split()[0] for heading in parts[::2]), parts[1::2], strict=True))
    text = sections.get(version, "").strip()
    if not text:
        raise ReleaseUnclear(
            f"CHANGELOG.md must tell something under '## {version} - YYYY-MM-DD', got sections {', '.join(sections)}; "
            "move there what is under Unreleased"
        )
    return text


def versioned(manifest: str, version: str, members: Iterable[str]) -> str:
    """A member's `pyproject.toml` in a version: its own, and that of the members it asks for.

    Members are released together and tested together only, so no other version of a neighbour will do.
    """
    names = "|".join(map(re.escape, members))
    asked = re.sub(rf'"({names})(\[[^"]*\])?(?:==[^"]*)?"(?=\s*[,\]])', rf'"\1\2=={version}"', manifest)
    changed, places = re.subn(r'^version = "[^"]*"$', f'version = "{version}"', asked, flags=re.MULTILINE)
    if places != 1:
        raise ReleaseUnclear(f'A pyproject.toml must have one line version = "…", got {places}:\n{manifest}')
    return changed


def set_versions(root: Path, version: str) -> None:
    """Write the version into every member's manifest and into the lock."""
    manifests = {path: path.read_text(encoding="utf-8") for path in sorted(root.glob("projects/*/pyproject.toml"))}
    members = [path.parent.name for path in manifests]
    changed = {path: versioned(text, version, members) for path, text in manifests.items()}
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    uv = os.environ.get("UV", "uv")  # the one that started us need not be on PATH
    subprocess.run((uv, "lock", "--quiet"), cwd=root, check=True)


def main() -> str | None:
    """Do what the command line says; returns what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("notes", "versions"))
    parser.add_argument("tag", nargs="?", metavar="vX.Y.Z")
    options = parser.parse_args()
    root = Path.cwd()
    try:
        version = version_of(options.tag or checked_out_tag(root))
        told = notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
        if options.what == "versions":
            set_versions(root, version)
    except ReleaseUnclear as error:
        return f"release: {error}"
    print(told if options.what == "notes" else version)
    return None


if __name__ == "__main__":
    sys.exit(main())
