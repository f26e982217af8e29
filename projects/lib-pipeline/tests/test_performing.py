"""A result from a cache counts only with a receipt for this very task, key and products."""

import json

import pytest

from lib_pipeline.performing import Order, read_receipt, write_receipt
from lib_pipeline.targets import Target

ORDER = Order(member="lib-a", target=Target.BUILD, key="k1", commands=(), files={}, beyond=frozenset())


@pytest.fixture
def out(tmp_path):
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "a.whl").write_bytes(b"wheel")
    write_receipt(ORDER, tmp_path, seconds=1.5, note="")
    return tmp_path


def received(out, **changes):
    asked = {"member": ORDER.member, "target": ORDER.target, "key": ORDER.key} | changes
    return read_receipt(out, **asked)


def test_whole_it_says_how_long_the_task_took(out):
    assert received(out).seconds == 1.5


@pytest.mark.parametrize("changes", [{"member": "lib-b"}, {"target": Target.TEST}, {"key": "k2"}], ids=str)
def test_another_tasks_receipt_is_none(out, changes):
    assert received(out, **changes) is None


def write(name, content):
    return lambda out: (out / name).write_text(content((out / "receipt.json").read_text()))


SPOILS = {
    "the receipt gone": lambda out: (out / "receipt.json").unlink(),
    "the receipt cut off": write("receipt.json", lambda text: text[:-9]),
    "the receipt of another shape": write("receipt.json", lambda _: "[]"),
    "products denied": write("receipt.json", lambda text: json.dumps(json.loads(text) | {"products": {}})),
    "a product changed": write("dist/a.whl", lambda _: "other"),
    "a product gone": lambda out: (out / "dist" / "a.whl").unlink(),
    "a product more": write("dist/b.whl", lambda _: "more"),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_spoilt_result_is_none(out, spoil):
    spoil(out)
    assert received(out) is None
