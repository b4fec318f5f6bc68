"""The commands of ``m2m``, one file each, imported when called."""
