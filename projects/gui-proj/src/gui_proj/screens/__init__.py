"""The screens, one module each; the table of their addresses is in `app.py`."""
