"""Trained models of other libraries in, and back out.

One file per library, `verify` for the comparison that each importer makes, and `safetensors` for
the one file format that is opened: it holds names and numbers, and nothing in it is ever run.
"""
