"""A release is made of a tag: the version of every wheel and the notes come from it, whatever the repository says."""

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV = os.environ.get("UV", "uv")  # the one that started us need not be on PATH
RELEASE = ROOT / ".ci" / "release.py"
MEMBERS = sorted(path.parent.name for path in ROOT.glob("projects/*/pyproject.toml"))
LEFT_OUT = shutil.ignore_patterns("tests", "__pycache__", "node_modules", "dist")
CHANGELOG = """# Changelog

## Unreleased

- Not yet.

## 1.2.3 - 2026-11-26

### Added

- What 1.2.3 brings.

## 1.2.2 - 2026-11-01

- Old.
"""


@pytest.fixture
def clone(tmp_path):
    """This workspace's sources in a git repository of their own, its head tagged v1.2.3."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "projects", folder / "projects", ignore=LEFT_OUT)
    for name in ("pyproject.toml", "uv.lock", ".python-version"):
        shutil.copy(ROOT / name, folder)
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=All of it")
    git(folder, "tag", "v1.2.3")
    return folder


def git(folder, *arguments):
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(("git", *identity, *arguments), cwd=folder, check=True, capture_output=True)


def release(folder, *arguments):
    command = (sys.executable, str(RELEASE), *arguments)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return BytesParser().parsebytes(archive.read(name))


def test_wheels_built_from_a_tag_have_its_version_although_the_repository_says_another(clone):
    done = release(clone, "versions")
    assert (done.returncode, done.stdout) == (0, "1.2.3\n"), done.stderr
    quiet = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    build = (UV, "build", "--quiet", "--wheel", "--all-packages")
    built = subprocess.run(build, cwd=clone, env=quiet, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    wheels = [metadata(path) for path in (clone / "dist").glob("*.whl")]
    assert sorted(wheel["Name"] for wheel in wheels) == MEMBERS
    assert {wheel["Version"] for wheel in wheels} == {"1.2.3"}
    asked = {each for wheel in wheels for each in wheel.get_all("Requires-Dist", []) if each.startswith("lib-events")}
    named = {each.partition(";")[0].strip() for each in asked}
    assert named == {"lib-events==1.2.3", "lib-events[opentelemetry]==1.2.3"}
    subprocess.run((UV, "lock", "--check", "--quiet"), cwd=clone, env=quiet, check=True)


def test_notes_are_the_section_of_the_tag_and_nothing_else(clone):
    done = release(clone, "notes")
    assert (done.returncode, done.stdout) == (0, "### Added\n\n- What 1.2.3 brings.\n"), done.stderr


def test_a_version_that_the_changelog_does_not_tell_of_is_refused_and_nothing_is_written(clone):
    before = (clone / "projects" / "lib-events" / "pyproject.toml").read_text()
    done = release(clone, "versions", "v2.0.0")
    assert done.returncode == 1
    assert "must tell something under '## 2.0.0 - YYYY-MM-DD', got sections Unreleased, 1.2.3, 1.2.2" in done.stderr
    assert (clone / "projects" / "lib-events" / "pyproject.toml").read_text() == before


@pytest.mark.parametrize("tag", ["1.2.3", "v1.2", "v1.2.3rc1", "latest"])
def test_a_tag_that_is_no_version_is_refused(clone, tag):
    done = release(clone, "notes", tag)
    assert done.returncode == 1
    assert f"must be vX.Y.Z, got {tag}" in done.stderr


def test_a_commit_without_a_tag_is_no_release(clone):
    git(clone, "tag", "--delete", "v1.2.3")
    done = release(clone, "notes")
    assert done.returncode == 1
    assert "must be vX.Y.Z, got none; name one, or tag this commit" in done.stderr
