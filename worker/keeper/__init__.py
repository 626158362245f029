"""Background duties of an installation: stopping runs, repairing what diverged, delivering notifications.

`python -m worker.keeper` runs them all. Several may run: a lease lets one do each duty, and everything a duty does may
be repeated, so that a keeper may be killed at any moment.
"""
