"""Tags: the short texts a run is found by, given at its start and changed by its workflow."""

from collections.abc import Mapping

from lib_events.texts import fit
from lib_workflows.errors import TagsInvalid
from lib_workflows.values.codec import decode_json, encode_json

NAME_LIMIT = 128
VALUE_LIMIT = 1024
COUNT_LIMIT = 64


def check_tags[V: (str, str | None)](tags: Mapping[str, V]) -> dict[str, V]:
    """Return `tags` as a dictionary; raises `TagsInvalid`."""
    if not isinstance(tags, Mapping):
        raise TagsInvalid(f"tags must be a dictionary of texts, got {tags!r:.200}")
    for name, value in tags.items():
        if not isinstance(name, str) or not 0 < len(name) <= NAME_LIMIT or ":" in name or fit(name) != name:
            raise TagsInvalid(f"names of tags must be 1 to {NAME_LIMIT} characters without a colon, got {name!r:.200}")
        if value is not None and (not isinstance(value, str) or len(value) > VALUE_LIMIT or fit(value) != value):
            raise TagsInvalid(f"tag {name} must be a text of at most {VALUE_LIMIT} characters, got {value!r:.200}")
    return dict(tags)


def changed(text: str | None, changes: Mapping[str, str | None]) -> str | None:
    """The tags of a run's row after `changes`; raises `TagsInvalid` when they are too many."""
    merged: dict[str, str | None] = {**(decode_json(text) if text else {}), **changes}
    kept = {name: value for name, value in merged.items() if value is not None}
    if len(kept) > COUNT_LIMIT:
        raise TagsInvalid(f"a run must have at most {COUNT_LIMIT} tags, got {len(kept)}; take some away")
    return encode_json(kept) if kept else None
