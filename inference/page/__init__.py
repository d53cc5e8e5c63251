"""The web page of `microemo app`: clips are dropped or recorded, and their utterances described."""
