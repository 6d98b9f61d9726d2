"""The laboratory: ablations, the paper's claims, and training of the embedded networks."""
