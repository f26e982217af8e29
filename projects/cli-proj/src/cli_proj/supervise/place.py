"""Which data folder a command about the product means."""

from pathlib import Path

from cli_proj.context import DATA_FOLDER, find_data


def data_folder(given: Path | None) -> Path:
    """The given one, else that of the product that runs here, else where one would be."""
    return (given or find_data() or Path(DATA_FOLDER)).absolute()
