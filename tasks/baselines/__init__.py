"""Other systems of the paper's Table 1: each edits a portrait by words or by a picture (3DPE, section 4.1)."""
