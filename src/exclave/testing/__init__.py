"""Conformance suites and small real fakes, also for authors of adapters."""
