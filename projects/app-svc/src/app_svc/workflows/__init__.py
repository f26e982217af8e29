"""The built-in workflows, each a different type of asynchronous workflow, each one file."""

from typing import Any

from app_svc.workflows.access_request import access_request
from app_svc.workflows.import_table import import_table
from app_svc.workflows.order import order
from app_svc.workflows.welcome_user import welcome_user
from lib_workflows import Workflow

BUILT_IN: tuple[Workflow[*tuple[Any, ...], Any], ...] = (access_request, import_table, order, welcome_user)
