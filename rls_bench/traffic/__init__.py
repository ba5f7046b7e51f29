"""What is asked of attention in production: counted while it is served, kept in a file, and represented by a few problems."""
