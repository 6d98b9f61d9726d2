"""Samples as bytes: fields and shards."""
