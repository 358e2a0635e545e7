"""The program inside the sandbox: standard library alone, Python 3.9 and up.

It travels as a zip file through a file descriptor, so nothing of ours need be readable there.
"""
