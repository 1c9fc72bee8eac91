"""What pickle alone cannot carry: functions and classes of ``__main__``, lambdas, closures, Structs.

    culprits                    where in a message something cannot be sent
    functions                   the pickler: what goes by reference, what by value
    definitions  classes  structs  names    taking things apart, and putting them together where they arrive
    references                  what the other side finds under its name

Why not cloudpickle, which does most of this: importing it costs an isolate some 50 ms and 2.5 MB, again for each
interpreter; it cannot carry msgspec's Structs, nor classes that msgspec has seen; and a class that comes home is
written over. docs/explanation/how-a-message-travels.md says more.
"""
