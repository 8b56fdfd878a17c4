"""Where objects are kept: one port, one adapter a kind of store."""
