"""Asks other models about answers: a judge for a verdict, and an embedding model for the similarity of texts.

`naming` reads `--judge` and says what a run needs, `asking` asks what is not stored yet, and `endpoint`, `local_model`
and `similarities` reach the models.
"""
