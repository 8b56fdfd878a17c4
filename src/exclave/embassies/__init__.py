"""The sites abroad: one verb a module."""
