"""The connector: dials out to relays and hands pushes to the targets that it exposes."""
