"""What the README shows is run."""

import ast
import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from sqlalchemy import Column, MetaData, Table, Text, select

from lib_events.database import Schema
from lib_events.tables import events

README = Path(__file__).parents[1] / "README.md"
VERSION = '''"""The shop's tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = ("shop",)


def upgrade():
    op.create_table("orders", sa.Column("id", sa.Text, primary_key=True), sa.Column("sku", sa.Text))
'''


class Order(BaseModel):
    """What somebody ordered."""

    id: str
    sku: str


orders = Table("orders", MetaData(), Column("id", Text, primary_key=True), Column("sku", Text))


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A shop's tables, as a member brings them, and a folder for its database."""
    versions = tmp_path / "shop_migrations" / "versions"
    versions.mkdir(parents=True)
    (versions.parent / "__init__.py").touch()
    (versions / "0001_orders.py").write_text(VERSION)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Schema("shop", orders.metadata, "shop_migrations")


async def test_the_readmes_row_and_its_event_are_on_disk(shop):
    [block] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names = {"Order": Order, "orders": orders, "order": Order(id="42", sku="tea"), "SHOP_SCHEMA": shop}
    await eval(compile(block, str(README), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    database = names["database"]
    try:
        rows = await database.read(lambda connection: connection.execute(select(orders.c.id, orders.c.sku)).all())
        told = await database.read(lambda connection: connection.execute(select(events.c.type, events.c.subject)).all())
    finally:
        await database.close()
    assert (rows, told) == ([("42", "tea")], [("shop.order.placed", "42")])
