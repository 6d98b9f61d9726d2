"""Networks from one portrait to a triplane and its views: Live3D, EG3D and the student."""
