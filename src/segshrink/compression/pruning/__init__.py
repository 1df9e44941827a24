"""Structured pruning and width scaling: channels that depend on each other leave a network together."""
