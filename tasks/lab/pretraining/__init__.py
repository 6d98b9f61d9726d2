"""How the embedded models learn: pictures of the procedural world, one training loop, one recipe a network."""
