"""Start and check what serves a rebuilt register."""
