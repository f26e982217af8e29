"""Gives a user a new password while the product is stopped: the AuthService's own code does it."""

import subprocess
import sys
from pathlib import Path

from cli_proj.failure import conflict, not_found
from cli_proj.supervise.data_lock import DataInUse, DataLock
from lib_events.settings import is_data_folder


def reset_offline(username: str, data: Path) -> int:
    """Let the AuthService's own code do it, while nobody else has the data folder."""
    if not is_data_folder(data):
        raise not_found(f"{data} must be a data folder that evs made, and is not")
    lock = DataLock(data)
    try:
        lock.take()
    except DataInUse as error:
        raise conflict(f"a product runs on {data}", hint=f"evs down --data {data}, or leave --data out") from error
    try:
        command = [sys.executable, "-m", "auth_svc", "reset-password", username, "--data", str(data)]
        return subprocess.run(command, check=False).returncode  # noqa: S603
    finally:
        lock.release()
