"""Text that users give: captions, files of pairs, tables. What is wrong with a file is an error with its line."""
