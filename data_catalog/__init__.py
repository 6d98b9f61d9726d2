"""What exists and the proof that it is what we made: settings, fingerprints, records, plan, shards."""
