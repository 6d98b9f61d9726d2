"""The laboratory's flows: ablations, claims, training of the embedded networks."""
