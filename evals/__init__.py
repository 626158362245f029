"""Measurements of quality on outside data. Nothing here is part of a running installation."""
