"""Pages and documents about datasets, evaluations and students."""
