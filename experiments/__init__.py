"""What jconv is for, shown on real data: one script a question.

A module here whose docstring opens with a line that ends in "(N minutes)" is a script, and runs as
`python -m experiments.NAME`. What scripts share is in `command_line` and in two rooms: `learning`
(real data, a small net, what trains it) and `speed` (programs checked and timed side by side).
"""
