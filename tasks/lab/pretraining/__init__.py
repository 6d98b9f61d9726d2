"""Training of the embedded models: pictures of the procedural world, a training loop, a recipe for each network."""
