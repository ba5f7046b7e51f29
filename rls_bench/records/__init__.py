"""What was measured, and how sure is it. Needs no torch."""
