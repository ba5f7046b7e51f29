"""Which backend does ``auto`` take: the file that ``choose`` writes, and the look-up in it."""
