"""Upstreams that are not there: real HTTP on loopback, the documented statuses, real small images.

Each demands its key, counts the paid work it was made to do, and misbehaves on command. In a test:
`async with openai.fake() as upstream:`; beside a process that gets killed:
`python -m tests.fakes.openai --port 9001 --log calls.jsonl`, steered by `POST /_control`.
"""
