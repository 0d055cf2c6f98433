"""The steps that read and write files, one step per module.

A step's result is reused from the cache if nothing it depends on has changed. Its inputs list all of that
as plain data: the keys of earlier steps, options, versions of the tools it calls, and under "code" the cnnx
modules that it runs (`cnnx.store.own_code`).
"""
