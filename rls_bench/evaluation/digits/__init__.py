"""Digits: find the cell of one hue in a grid of handwritten digits, and read it."""
