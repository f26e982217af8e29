"""Ids and secrets that say nothing."""

import base64
import time

from auth_svc import opaque


def test_ids_of_tokens_are_unique_and_in_order_of_time():
    before = time.time_ns() // 1_000_000
    ids = [opaque.new_token_id() for _ in range(2_000)]
    assert len(set(ids)) == len(ids)
    moments = [int.from_bytes(base64.urlsafe_b64decode(token_id + "==")[:6]) for token_id in ids]
    assert moments == sorted(moments)
    assert before <= moments[0] <= moments[-1] <= time.time_ns() // 1_000_000


def test_no_id_begins_like_an_option_of_a_command():
    ids = {opaque.new_id() for _ in range(2_000)}
    assert len(ids) == 2_000
    assert all(each.isalnum() for each in ids)
