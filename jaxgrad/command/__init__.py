"""The command ``jaxgrad``: its options, the loading of files, a run, and the terminal."""
