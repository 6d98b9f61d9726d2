"""What exists and the proof that it is what we made: settings, stages, fingerprints, records, plan, shards."""
