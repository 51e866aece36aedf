"""What jconv is for, shown on real data: one script a question.

A module whose docstring opens with a line that ends in "(N minutes)" is a script, and runs as
`python -m experiments.NAME`. The others are what the scripts share.
"""
