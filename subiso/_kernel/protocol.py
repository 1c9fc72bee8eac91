"""Every record that travels between isolates, on one screen.

A record is ``[word 0: kind and length] [word 1: the receiving port's address] [word 2: when it was sent] [payload]``,
padded to eight bytes.
"""

# -- how the stream of records itself goes on (links.py) ---------------------------------------------------------------
JUMP = 1  # the stream goes on in a segment: payload is its descriptor and size, two words
HOME = 2  # the stream goes on at the start of the ring, which is empty; no payload

# -- for the mailbox (mailbox.py) --------------------------------------------------------------------------------------
GRANT = 3  # an isolate holds a send port of the port addressed, or no more: words of its slot, number, and which
LARGE = (
    4  # a message beside the stream: words of descriptor + 1 or 0, size, kind, number of parts; for each (body, then
)
# buffers) its length and the address of its region or 0; without a descriptor, what is in no region follows

# -- what a message's payload is (messages.py) -------------------------------------------------------------------------
NONE, TRUE, FALSE = 16, 17, 18  # empty payload
INT, FLOAT = 19, 20  # eight bytes, native order
TEXT, BYTES = 21, 22  # UTF-8; as it is
MSGPACK = 23  # msgspec's MessagePack: plain containers, or a value for a typed port
PICKLE = 24  # pickle protocol 5; its large buffers travel beside it
FAILURE = 25  # in place of a result: pickle of what failures.pack gives
