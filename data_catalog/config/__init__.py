"""Settings, profiles and styles, where files lie, and the error for what a user can fix."""
