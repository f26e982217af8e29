"""What starts a workflow by itself, in words."""

import htpy as h

from gui_proj.icons import icon
from gui_proj.moments import seconds_words
from gui_proj.resources import Batch, Workflow


def triggers(workflow: Workflow) -> h.Node:
    """The events it starts on, and how they gather; nothing where it is started by people alone."""
    if not workflow["on"]:
        return None
    names = ((h.code[name], " ") for name in workflow["on"])
    return h.p(".triggers")[icon("bell"), "starts by itself on ", names, _in_batches(workflow["batch"])]


def _in_batches(batch: Batch | None) -> h.Node:
    if batch is None:
        return None
    of_each: h.Node = [" of each ", h.code[batch["key"]]] if batch["key"] is not None else None
    time = seconds_words(batch["timeout_seconds"])
    return ["in batches: ", f"{batch['events']}", of_each, f", or those that have come {time} after the first"]
