"""The workshop as a notebook for Colab and Kaggle: what it contains (`contents`), and how it is written (`cells`).

Notebooks use nothing of this package but the files that `own_code` puts into them.
"""
