"""Photos in: decoding, EXIF, masks, and the folder that the other stages start from."""
