"""Catalog of everything made, with proof of its origin: settings, fingerprints, records, plan, shards."""
