"""Landmarks, crops and the camera of a face."""
