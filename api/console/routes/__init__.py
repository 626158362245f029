"""One module a noun; each exports `router`, listed in `api/console/app.py`."""
