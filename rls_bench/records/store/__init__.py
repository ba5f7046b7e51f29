"""Millions of records in Parquet, a folder a machine and month, read by DuckDB (extra ``store``).

JSON lines stay what is true: each row keeps its line as it came, beside columns that a query may ask about.
``importing`` writes, ``reading`` reads.
"""
