"""Read text files from users: captions, pairs files and tables. Errors name the file and the line."""
