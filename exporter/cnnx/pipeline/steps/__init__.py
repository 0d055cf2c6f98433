"""The steps that take files and give files, one step a file.

A step is found in the cache when nothing it depends on has changed. Its inputs name, as plain data, all
of that: the keys of the steps before it, options, versions of the tools it calls, and under "code" the
cnnx modules that fill it (`cnnx.store.own_code`).
"""
