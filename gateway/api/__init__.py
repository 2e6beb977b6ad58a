"""Routes, one noun a file. Each module has a `blueprint`, which `gateway/app.py` finds by itself."""
