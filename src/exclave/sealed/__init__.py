"""The sealed store format: pure transformations between captured content and stored objects."""
