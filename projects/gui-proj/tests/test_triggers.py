"""What starts a workflow by itself, in words."""

import re

from gui_proj.triggers import triggers


def told(on, batch=None):
    return re.sub("<[^>]+>", "", str(triggers({"on": on, "batch": batch}) or ""))


def test_what_starts_a_workflow_is_said_with_how_it_gathers():
    assert told([]) == ""
    assert told(["a.b", "c.d"]).strip() == "starts by itself on a.b c.d"
    batch = {"events": 100, "timeout_seconds": 5.0, "key": None}
    first = "starts by itself on a.b in batches: 100, or those that have come 5.0 s after the first"
    assert told(["a.b"], batch) == first
    assert told(["a.b"], batch | {"key": "<b>"}) == first.replace("100", "100 of each &lt;b&gt;")
