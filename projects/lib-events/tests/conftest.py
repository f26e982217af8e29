"""What several tests use, importable by name."""

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("notes", Path(__file__).with_name("notes.py"))
assert _spec is not None
assert _spec.loader is not None
sys.modules["notes"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["notes"])
