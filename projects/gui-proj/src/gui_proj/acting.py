"""For whom a run acts at other services, where, and whether it still may."""

import htpy as h

from gui_proj.components import asker, notice
from gui_proj.moments import utc_words
from gui_proj.resources import Acting, Run


def acting_notice(run: Run, *, subject: str, apps_url: str) -> h.Node:
    """While the run goes on; nothing where its workflow does nothing in anybody's name.

    `subject` is who looks, `apps_url` where people see and stop what acts for them.
    """
    acting = run["acting"]
    if not acting:
        return None
    return notice(
        h.p("#acting")[
            _said(run, acting),
            _where(acting),
            _until(acting),
            _is_of(run, subject) and _what_to_do(acting, apps_url),
        ],
        tone="info" if acting["state"] == "acting" else "bad",
    )


def may_be_stopped(run: Run) -> bool:
    """Whether a page has to look by itself: what stops acting is told to administrators alone."""
    return run["acting"] is not None and run["acting"]["state"] == "acting"


def _said(run: Run, acting: Acting) -> h.Node:
    match acting["state"]:
        case "acting":
            return ["Acts for ", h.b[asker(run)], " at "]
        case "stopped":
            return [h.b["Stopped: "], "it acts no longer for ", asker(run), " at "]
        case "expired":
            return [h.b["Expired: "], "it acts no longer for ", asker(run), " at "]
        case _:
            return [h.b["Acts for nobody, "], "so it may do nothing at "]


def _where(acting: Acting) -> h.Node:
    return [
        [number > 0 and "; ", h.code[each["resource"]], " with ", ", ".join(each["scope"])]
        for number, each in enumerate(acting["services"])
    ]


def _until(acting: Acting) -> str:
    if acting["state"] == "acting" and acting["until"]:
        return f" until it ends, {utc_words(acting['until'])} UTC at the latest."
    return "."


def _is_of(run: Run, subject: str) -> bool:
    return run["principal"] is not None and run["principal"]["subject"] == subject


def _what_to_do(acting: Acting, apps_url: str) -> h.Node:
    """For its owner: they alone can stop it, or let it go on."""
    if acting["state"] == "acting":
        return [" ", h.a(href=apps_url)["See and stop what acts for you"], "."]
    return " When it has failed, retry it, and it acts for you again."
