"""What the documentation makes while it is built: the services' AsyncAPI documents, from their registries."""

import json

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from app_svc import discovery as app_service
from app_svc.service import registry_of
from app_svc.workflow_loading import load_workflows
from auth_svc.endpoints import discovery as auth_service

APP_URL = "http://127.0.0.1:8002"
AUTH_URL = "http://127.0.0.1:8001"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents as the services would answer them, but for the versions that their databases remember."""
    registry = registry_of(load_workflows([]))
    documents = {
        "app-svc": app_service.describe_events(registry, {}, app_url=APP_URL, auth_url=AUTH_URL),
        "auth-svc": auth_service.describe_events({}),
    }
    for service, document in documents.items():
        content = json.dumps(document, indent=2)
        files.append(File.generated(config, f"reference/{service}.asyncapi.json", content=content))
    return files
