"""Page of `stillroom serve`: edit a portrait, browse datasets, compare students."""
