"""SQLite databases: captured whole and consistent while applications write to them."""
