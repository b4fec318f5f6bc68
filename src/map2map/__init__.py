"""Neural-network emulators of simulation fields, trained on pairs of files, applied at any size."""

__version__ = "1.0.0.dev0"
