"""A document is brought in by few items at a time, each after those it names."""

from auth_svc.transfer.document import Document
from auth_svc.transfer.plan import BATCH, batches


def document(**kinds):
    return Document.model_validate({"format": "evs-auth", "version": 1, **kinds})


def keys(pieces):
    return [piece.key for piece in pieces]


def test_an_empty_document_is_one_empty_batch():
    assert [(batch.pieces, batch.needs) for batch in batches(document())] == [([], [])]


def test_no_batch_has_more_than_a_few_items_and_all_are_there_once():
    people = [{"username": f"u{number}"} for number in range(25)]
    found = list(batches(document(users=people)))
    assert [len(batch.pieces) for batch in found] == [BATCH, BATCH, 5]
    assert [key for batch in found for key in keys(batch.pieces)] == [("user", person["username"]) for person in people]


def test_roles_come_after_those_they_include_whatever_their_order():
    given = [{"name": "c", "includes": ["b"]}, {"name": "b", "includes": ["a", "member"]}, {"name": "a"}]
    (batch,) = batches(document(roles=given))
    assert keys(batch.pieces) == [("role", "a"), ("role", "b"), ("role", "c")]


def test_roles_that_include_one_another_are_left_to_their_own_check():
    (batch,) = batches(document(roles=[{"name": "a", "includes": ["b"]}, {"name": "b", "includes": ["a"]}]))
    assert keys(batch.pieces) == [("role", "a"), ("role", "b")]


def test_a_batch_names_what_it_needs_and_what_that_needs_in_order():
    roles = [{"name": f"r{number}"} for number in range(BATCH)] + [{"name": "lead", "includes": ["r3"]}]
    groups = [{"name": "sales", "roles": ["lead"]}, {"name": "other", "roles": ["r5"]}]
    filling = [{"username": f"u{number}"} for number in range(BATCH)]
    people = [{"username": "grace", "groups": ["sales", "elsewhere"], "roles": ["operator"]}]
    *_, last = batches(document(roles=roles, groups=groups, users=filling + people))
    assert ("user", "grace") in keys(last.pieces)
    assert keys(last.needs) == [("role", "r3"), ("role", "lead"), ("group", "sales")]


def test_who_may_act_at_a_resource_is_decided_after_the_clients():
    resource = {"id": "maps", "identifier": "urn:maps", "name": "Maps", "actors": ["robot"]}
    client = {"id": "robot", "name": "Robot", "grant_types": ["client_credentials"]}
    (batch,) = batches(document(resources=[resource], clients=[client]))
    assert keys(batch.pieces) == [("resource", "maps"), ("client", "robot"), ("actors", "maps")]
