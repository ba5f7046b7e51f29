"""What is one call asked to do, and with which tensors. Importing the package imports no torch."""
