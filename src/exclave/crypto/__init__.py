"""The only door to cryptography and blake3."""
