"""Networks that measure a picture: CLIP, identity, LPIPS, safety."""
