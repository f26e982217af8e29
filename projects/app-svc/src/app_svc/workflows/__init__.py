"""The built-in workflows, each a different type of asynchronous workflow, each one file."""

from app_svc.workflows.access_request import access_request
from app_svc.workflows.import_table import import_table
from app_svc.workflows.order import order
from app_svc.workflows.welcome_user import welcome_user
from lib_workflows.authoring.workflow import AnyWorkflow

BUILT_IN: tuple[AnyWorkflow, ...] = (access_request, import_table, order, welcome_user)
