"""Workspaces of another shape: the same command, and nothing added to them."""

import pytest

ALL = {"app-svc", "lib-bus", "lib-core", "lib-lone"}


@pytest.mark.parametrize(
    "root_project", [False, True], ids=["without a project in the root", "with a project in the root"]
)
def test_a_foreign_workspace_works_with_the_same_command_and_stays_as_it_is(make_workspace, root_project):
    # Without one in the root, environments are made anew in `test_pipeline`.
    workspace = make_workspace("packages", root_project=root_project, anew=root_project)
    first, again = workspace.pipeline(), workspace.pipeline()
    assert (first.code, again.code) == (0, 0), first.err
    for target in ("lint", "types", "test", "build"):
        assert first.members("ran", target) == ALL
        assert again.members("cached", target) == ALL
    left = workspace.git("status", "--short", "--ignored").splitlines()
    assert [line for line in left if "__pycache__" not in line] == ["!! dist/"]


def test_a_root_with_a_project_is_linted_tested_and_built_as_a_member(make_workspace):
    workspace = make_workspace("packages", root_project=True)
    (workspace.root / "src" / "acme").mkdir(parents=True)
    (workspace.root / "src" / "acme" / "__init__.py").write_text("ANSWER = 42\n")
    (workspace.root / "tests").mkdir()
    (workspace.root / "tests" / "test_acme.py").write_text(
        "import app_svc\n\nimport acme\n\n\ndef test_answer():\n    assert acme.ANSWER + app_svc.value() == 45\n"
    )
    manifest = workspace.root / "pyproject.toml"
    manifest.write_text(
        '[build-system]\nrequires = ["uv_build>=0.8,<1"]\nbuild-backend = "uv_build"\n\n' + manifest.read_text()
    )
    workspace.lock()
    run = workspace.pipeline("lint", "test", "build", "acme")
    assert run.code == 0, run.err
    assert run.report["counts"] == {"ran": 3}


def test_a_member_needs_nothing_to_take_part(known_workspace, new_member):
    workspace = known_workspace
    new_member(workspace.root / workspace.layout / "lib-new", ("lib-core",), 2)
    workspace.lock()
    run = workspace.pipeline("test", "types", "lint")
    assert run.code == 0, run.err
    assert run.members("ran") == run.members("ran", "types") == {"lib-new"}
    assert run.members("ran", "lint") == {*ALL, "lib-new"}  # their imports could be first-party now


def test_a_backend_that_the_lock_does_not_cover_is_built_every_time(make_workspace):
    workspace = make_workspace("packages")
    manifest = workspace.root / "packages" / "lib-lone" / "pyproject.toml"
    backend = 'requires = ["uv_build>=0.8,<1"]'
    manifest.write_text(manifest.read_text().replace(backend, 'requires = ["uv_build>=0.8,<1", "packaging"]'))
    assert workspace.pipeline("build").code == 0
    assert workspace.pipeline("build").members("ran", "build") == {"lib-lone"}


def test_documentation_with_a_broken_link_is_red_and_names_it(make_workspace):
    workspace = make_workspace()
    manifest = workspace.root / "pyproject.toml"
    manifest.write_text(manifest.read_text().replace('"mypy", ', '"mkdocs", "mypy", '))
    workspace.lock()
    (workspace.root / "mkdocs.yml").write_text("site_name: Acme\n")
    page = workspace.root / "docs" / "index.md"
    page.parent.mkdir()
    page.write_text("[Gone](gone.md)\n")
    red = workspace.pipeline("docs")
    assert red.code == 1
    assert "gone.md" in red.out + red.err
    page.write_text("Here.\n")
    assert workspace.pipeline("docs").code == 0
    assert (workspace.root / "site" / "index.html").exists()
