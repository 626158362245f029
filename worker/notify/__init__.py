"""Telling people and programs: which channels there are (`channels`), and how each kind is reached."""
