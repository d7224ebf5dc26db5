"""A transparency log over bytes: tree, checkpoint, signed note, proofs, entries and what holds between them.

Nothing here reads, writes, waits or knows the time, so that the same code writes the journal, verifies it
offline and can be checked against other people's tools. Hashing follows RFC 6962, the texts follow C2SP
(signed-note, tlog-checkpoint, tlog-tiles, tlog-proof). What a stranger may have written is parsed to a value
or to a `Problem`, never to an exception.
"""
