"""The page that `stillroom serve` shows: edit a portrait, browse datasets, compare students."""
