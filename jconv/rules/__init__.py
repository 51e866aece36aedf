"""The rules of a CPU: for each face a table, in the order in which they are tried.

A condition is on sizes alone, and names the layers on which it was measured.
"""
