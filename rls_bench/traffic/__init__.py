"""What is asked of attention in production: counted while it is served, kept, and represented by a few problems."""
