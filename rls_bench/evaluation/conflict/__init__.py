"""Conflict: two speakers say different things, and one of them is highlighted."""
