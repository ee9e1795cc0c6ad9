"""textcap: audio captioning trained without audio."""
