"""Shares, requests and approvals: how a quorum opens what nobody can open alone."""
