"""The servers that ``python -m loadtests peers`` measures beside a node, each written as its own documentation would.

All pass on what is published to the one room, and nothing else. Where a project brings its own way over Redis, a bridge
(``*_bridge``) publishes as that project documents it for other processes.
"""
