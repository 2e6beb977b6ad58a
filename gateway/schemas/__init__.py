"""Shapes of bodies, queries and answers, one noun a file; `fields.py` has the strict fields that they are made of."""
