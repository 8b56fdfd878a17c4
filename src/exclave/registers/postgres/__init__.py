"""PostgreSQL clusters as registers: base backup over the replication protocol, and their rebuilding."""
