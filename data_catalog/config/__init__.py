"""Settings, profiles and styles, the project's folders, and the error for mistakes that a user can fix."""
