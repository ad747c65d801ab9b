"""Files, formats and folders: everything that is written to disk or read from it."""
