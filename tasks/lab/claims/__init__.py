"""The claims of the paper: arms, measures and the page."""
