"""The changes, oldest first: `<revision>_<what>.py`."""
