"""Every command line that the documentation shows is one that the program understands: parsed, and not run."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from cyclopts import CycloptsError

import app_svc.__main__ as app_program
import auth_svc.__main__ as auth_program
import lib_pipeline.__main__ as pipeline_program
from cli_proj.main import build_app
from lib_pipeline.targets import Target

ROOT = Path(__file__).parents[1]
TEMPLATES = "projects/cli-proj/src/cli_proj/templates"
PAGES = sorted(
    path
    for pattern in ("*.md", "projects/*/README.md", "docs/**/*.md", "benchmarks/*.md", f"{TEMPLATES}/**/*.md")
    for path in ROOT.glob(pattern)
)
FENCE = re.compile(r"^( *)```(?:sh|bash|console)?\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:uv run )?(?:evs|pipeline) [^`…]+)`(?!`)")
OURS = re.compile(r"(?:uv run )?(?:evs|pipeline)\b")
ASSIGNMENT = re.compile(r"[A-Z_]+=.*")
BETWEEN = ("|", "||", "&&", ";", "&", ">", ">>", "<", "(", ")")
WORDS = {*Target, pipeline_program.ALL, pipeline_program.SELF_TEST}


def fenced(text):
    """The lines of fenced blocks, joined where they go on, without prompts; with the line of the page."""
    for block in FENCE.finditer(text):
        first = text[: block.start(2)].count("\n") + 1
        going_on, began = "", first
        for number, line in enumerate(block[2].splitlines(), first):
            began = began if going_on else number
            going_on += line.strip().removeprefix("$ ")
            if going_on.endswith("\\"):
                going_on = going_on[:-1]
                continue
            yield began, going_on
            going_on = ""


def calls(line):
    """The calls in a line of shell: what stands before the program, such as `uv run` and variables, is left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError as error:
        if OURS.match(line):
            raise ValueError(f"{line} must be a line of shell, got: {error}") from error
        return  # a drawing, or another language
    call = []
    for word in [*words, ";"]:
        if word not in BETWEEN:
            call.append(word)
        elif call:
            yield program_of(call)
            call = []


def program_of(call):
    words = [word for place, word in enumerate(call) if not (place == 0 and ASSIGNMENT.fullmatch(word))]
    if words[:2] == ["uv", "run"]:
        words = words[2:]
    return words


EVS = build_app()


def parse_evs(arguments):
    if not arguments or arguments[-1] in {"--help", "--version"}:
        return None
    try:
        EVS.parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return str(error)
    return None


def parse_pipeline(arguments):
    options = parsed(pipeline_program._parser().parse_intermixed_args, arguments)
    if isinstance(options, str):
        return options
    first = options.words[:1]
    known = {*WORDS, *(path.name for path in (ROOT / "projects").iterdir())}
    return None if not first or first[0] in known else f"no target or member {first[0]}"


def parsed(parse, arguments):
    """What argparse makes of arguments, or what it says against them."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse(arguments)
    except SystemExit:
        return said.getvalue()


def refusal(parse, arguments):
    found = parsed(parse, arguments)
    return found if isinstance(found, str) else None


PROGRAMS = {
    "evs": parse_evs,
    "pipeline": parse_pipeline,
    "app-svc": lambda arguments: refusal(app_program._parser().parse_args, arguments),
    "auth-svc": lambda arguments: refusal(auth_program._parser().parse_args, arguments),
}


def wrong(page, lines, *, whole):
    """Every call of a program of ours that it would refuse, and why; a call that is not `whole` may lack arguments."""
    for number, line in lines:
        for program, *arguments in calls(line):
            reason = PROGRAMS[program](arguments) if program in PROGRAMS else None
            if reason and (whole or "requires an argument" not in reason):
                yield f"{page}:{number}: {line.strip()}: {reason}"


def inline(text):
    """The commands within sentences, with the line of the page; brackets say what may be left out."""
    for found in INLINE.finditer(text):
        yield text[: found.start()].count("\n") + 1, re.sub(r"[\[\]\n]", " ", found[1])


def test_shown_commands_are_understood():
    assert [
        each for page in PAGES for each in wrong(page.relative_to(ROOT), fenced(page.read_text()), whole=True)
    ] == []


def test_commands_within_sentences_are_understood():
    assert [
        each for page in PAGES for each in wrong(page.relative_to(ROOT), inline(page.read_text()), whole=False)
    ] == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("uv run evs run begin order", "begin"),
        ("$ evs run start order --parameters a=b", "--parameters"),
        ("evs run start", "WORKFLOW"),
        ("EVS_DATA=here uv run evs up --worker 2 | cat", "--worker"),
        ("uv run pipeline tests", "tests"),
        ("cd elsewhere && uv run pipeline --afected", "--afected"),
        ("uv run app-svc --workflow flows.py --nonsense", "--nonsense"),
    ],
)
def test_a_command_that_is_not_understood_is_found(line, reason):
    [found] = wrong("page.md", fenced(f"Text.\n\n```sh\n{line}   # and why\n```\n"), whole=True)
    assert reason in found.partition("and why: ")[2]
    assert found.startswith("page.md:4: ")
