"""An example of a backend that a third party ships in a package of its own."""
