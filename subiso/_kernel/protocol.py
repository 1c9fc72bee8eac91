"""Every record that travels between isolates, on one screen.

A record is ``[word 0: kind and length] [word 1: the receiving port's address] [word 2: when it was sent] [payload]``,
padded to eight bytes.
"""

# -- how the stream of records itself goes on (links.py) ---------------------------------------------------------------
JUMP = 1  # the stream goes on in a segment: payload is its descriptor and size, two words
BACK = 2  # the stream goes on at the start of the segment that it is in, which is empty; no payload
HOME = 3  # the stream goes on at the start of the ring, which is empty; no payload

# -- for the mailbox (mailbox.py) --------------------------------------------------------------------------------------
GRANT = 4  # an isolate holds a send port of the port addressed, or no more: words of its slot, number, and which
LARGE = 5  # a message beside the stream: how its parts are found (parcels.py)

# -- what a message's payload is (messages.py) -------------------------------------------------------------------------
NONE, TRUE, FALSE = 16, 17, 18  # empty payload
INT, FLOAT = 19, 20  # eight bytes, native order
TEXT, BYTES = 21, 22  # UTF-8; as it is
MSGPACK = 23  # msgspec's MessagePack: plain containers, or a value for a typed port
PICKLE = 24  # pickle protocol 5; its large buffers travel beside it
FAILURE = 25  # in place of a result: pickle of what failures.pack gives
