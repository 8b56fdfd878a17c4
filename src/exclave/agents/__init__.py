"""Processes; they decide nothing."""
