"""What the command `app-svc` says when something must be changed before it can start."""

import os
import subprocess
import sys
from pathlib import Path


def start(data: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start it where it cannot; it ends by itself."""
    command = [sys.executable, "-m", "app_svc", "--data", str(data)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=os.environ | environment
    )


def test_a_wrong_setting_is_named_in_one_line(tmp_path: Path) -> None:
    ended = start(tmp_path / "evs", EVS_RUN_RETENTION_DAYS="0")
    assert ended.returncode == 1
    assert ended.stderr == "app-svc: EVS_RUN_RETENTION_DAYS is not right: Input should be greater than or equal to 1\n"
