"""What the documentation makes while it is built: AsyncAPI documents from registries, conformance from requirements."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from app_svc import discovery as app_service
from app_svc.service import registry_of
from app_svc.workflow_loading import load_workflows
from auth_svc.endpoints import discovery as auth_service

APP_URL = "http://127.0.0.1:8002"
AUTH_URL = "http://127.0.0.1:8001"
REQUIREMENTS = Path(__file__).parents[1] / "tests" / "rfc"
NAME_OF_TEST = re.compile(r"<code>(test_\w+)</code>")
CONFORMANCE = """# Conformance

What the specifications demand of the AuthService and of `lib_auth`, in our words, each demand with the tests that show
it or with the reason why there is none. The data is in `tests/rfc/`, one file for each specification; a test checks
that every requirement has one or the other and that every test it names is there.

The OpenID Foundation's plans for a provider (Basic OP, Config OP, RP-initiated and back-channel logout) are
`test_openid_basic_op.py` and `test_openid_logout.py`, a test for each module under its name. Strangers' libraries
run unmodified in `test_foreign_clients.py` and `test_openid_client.py`; races of twenty are `test_races.py`, nonsense
of every kind is `test_bad_input.py`, mix-ups of every kind `test_mix_ups.py`. Threats beside the specifications are in
the [threat model](threat-model.md).
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made of data: the documents as the services would answer them, and the conformance page."""
    registry = registry_of(load_workflows([]))
    documents = {
        "app-svc": app_service.describe_events(registry, {}, app_url=APP_URL, auth_url=AUTH_URL),
        "auth-svc": auth_service.describe_events({}),
    }
    for service, document in documents.items():
        content = json.dumps(document, indent=2)
        files.append(File.generated(config, f"reference/{service}.asyncapi.json", content=content))
    files.append(File.generated(config, "reference/conformance.md", content=conformance_page()))
    return files


def on_page_content(html: str, **_: object) -> str:
    """Let the names of tests, which are sentences, break between their words."""
    return NAME_OF_TEST.sub(lambda name: f"<code>{name[1].replace('_', '_<wbr>')}</code>", html)


def conformance_page() -> str:
    """Totals on top, then a table for each specification."""
    paths = sorted(REQUIREMENTS.glob("*.toml"), key=_order)
    specifications = [tomllib.loads(path.read_text()) for path in paths]
    return "\n".join([CONFORMANCE, *_totals(specifications), *(_table(each) for each in specifications)])


def _order(path: Path) -> tuple[bool, bool, str]:
    """OAuth 2.1 first, then RFCs by number, then drafts, then OpenID."""
    return path.stem.startswith("oidc"), not path.stem.startswith(("oauth", "rfc")), path.stem


def _totals(specifications: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    yield "| specification | MUST shown | MUST gap | SHOULD shown | SHOULD gap |\n|---|--:|--:|--:|--:|"
    sums = [0, 0, 0, 0]
    for document in specifications:
        counts = [
            sum(each["level"] == level and kind in each for each in document["requirement"])
            for level in ("must", "should")
            for kind in ("tests", "gap")
        ]
        sums = [before + count for before, count in zip(sums, counts, strict=True)]
        yield f"| [{document['specification']}]({document['url']}) | {' | '.join(map(str, counts))} |"
    yield f"| **together** | {' | '.join(f'**{count}**' for count in sums)} |\n"


def _table(document: Mapping[str, Any]) -> str:
    title = document["title"]
    heading = title if title == document["specification"] else f"{document['specification']}: {title}"
    lines = [f"## {heading}\n", "| | demand | shown by |", "|---|---|---|"]
    for each in document["requirement"]:
        shown = "<br>".join(f"`{test}`" for test in each["tests"]) if "tests" in each else f"**Gap.** {each['gap']}"
        lines.append(f"| {each['level'].upper()} | {each['text']} *({each['source']})* | {shown} |")
    return "\n".join([*lines, ""])
