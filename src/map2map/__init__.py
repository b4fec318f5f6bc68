"""Neural-network emulators of simulation fields, trained on pairs of files, applied at any size."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from map2map.data import FieldData as FieldData
    from map2map.emulator import Emulator as Emulator
    from map2map.fields import Field as Field
    from map2map.sources import open_source as open_source
    from map2map.task import Task as Task

__version__ = "1.0.0.dev0"
__all__ = ["Emulator", "Field", "FieldData", "Task", "open_source"]

HOMES = {
    "Emulator": "emulator",
    "Field": "fields",
    "FieldData": "data",
    "Task": "task",
    "open_source": "sources",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the package is quick."""
    if name not in HOMES:
        raise AttributeError(f"module 'map2map' has no attribute {name!r}")
    return getattr(import_module(f"map2map.{HOMES[name]}"), name)
