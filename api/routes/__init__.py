"""One module a noun; each exports `router`, listed in `api/app.py`."""
