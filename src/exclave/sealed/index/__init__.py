"""The format and the algorithms of home's deduplication index: immutable sorted runs of (chunk id, reference)."""
