"""A tree of files as a register: walked, read, and rebuilt with every attribute."""
