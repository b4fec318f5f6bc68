"""Older command lines and files, translated to recipes."""
