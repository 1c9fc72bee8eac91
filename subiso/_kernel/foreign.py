"""Threads that a library starts by itself and that then call Python: they must end up in the isolate they belong to.

Such a thread calls ``PyGILState_Ensure``, which knows one interpreter for the process: main. The isolate's objects
would be used under main's GIL, and their memory enlarged by main's allocator. So a copied library gets another function
in that one's place. It attaches a thread that is new to Python to this interpreter, and then calls the real one, which
finds the thread attached. The function is some instructions of machine code; where they are not to be had, all stays as
it is.
"""

import _thread
import atexit
import os

from subiso._kernel import capi, elf, sharing
from subiso._kernel.capi import Address, Int, Size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subiso._kernel.elf import Image

_OFFSETS = {b"PyGILState_Ensure": 0, b"Py_AddPendingCall": 128}  # function -> where in the page its stand-in is
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_PRIVATE_ANONYMOUS = 0x02 | 0x20
_THREAD_STATE = 256  # bytes of a thread state in which its counter is looked for

# With the counter of a new thread state at 0, the last PyGILState_Release deletes it, as it does in main.
_X86_64 = (
    "53"  # push rbx, to align the stack
    "48b8{get_state}ffd0"  # call PyGILState_GetThisThreadState
    "4885c07521"  # if there is one, go to the last three instructions
    "48bf{interpreter}48b8{new_state}ffd0"  # call PyThreadState_New with the interpreter
    "4885c07406ff88{counter}"  # if that succeeded, decrement the counter
    "5b48b8{ensure}ffe0"  # continue in PyGILState_Ensure
)
_JUMP_AT, _JUMP_ALWAYS = 16, 0xEB
_X86_64_PENDING = (  # Py_AddPendingCall, too, knows main only: greenlet would free an isolate's objects there
    "eb00"  # no jump; one to the last two instructions when the interpreter has ended
    "4889f24889fe"  # move the arguments, function and argument, on by one
    "48bf{interpreter}31c9"  # the first one is the interpreter, the last one no flags
    "48b8{add}ffe0"  # continue in _PyEval_AddPendingCall
    "48b8{add_to_main}ffe0"  # continue in Py_AddPendingCall
)
_PENDING_JUMP_AT, _PENDING_JUMP = _OFFSETS[b"Py_AddPendingCall"] + 1, 30
_PAGE = os.sysconf("SC_PAGE_SIZE")

_lock = _thread.allocate_lock()
_function: int | None = None
_mprotect = capi.returning_address("mprotect", Address, Size, Int)


def adopt(handle: int, image: "Image", source: int) -> None:
    """Have the loaded library attach its threads to this interpreter.

    Args:
        handle: of a private copy, as the dynamic linker gave it.
        image: its layout.
        source: descriptor of the original file.
    """
    base = sharing.base_of(handle)
    for name, offset in _OFFSETS.items():
        if not elf.names(source, image, name) or not (function := _make()):
            continue
        for address in elf.slots_of(source, image, name):
            start = (base + address) // _PAGE * _PAGE
            _mprotect(start, _PAGE, _PROT_READ | _PROT_WRITE)
            Address.from_address(base + address).value = function + offset
            if any(part.address <= address < part.address + part.loaded for part in image.protected):
                _mprotect(start, _PAGE, _PROT_READ)


def _make() -> int:
    """Return the address of this interpreter's function, or 0 if there can be none."""
    global _function
    with _lock:
        if _function is None:
            _function = 0
            offset = _counter_offset() if os.uname().machine == "x86_64" else 0
            if offset:
                _function = _assemble(offset)
        return _function


def _assemble(counter: int) -> int:
    def number(value: int) -> str:
        return value.to_bytes(8, "little").hex()

    interpreter = number(capi.returning_address("PyInterpreterState_Get")())
    pending = _X86_64_PENDING.format(
        interpreter=interpreter,
        add=number(capi.address("_PyEval_AddPendingCall")),
        add_to_main=number(capi.address("Py_AddPendingCall")),
    )
    text = _X86_64.format(
        get_state=number(capi.address("PyGILState_GetThisThreadState")),
        interpreter=interpreter,
        new_state=number(capi.address("PyThreadState_New")),
        counter=counter.to_bytes(4, "little").hex(),
        ensure=number(capi.address("PyGILState_Ensure")),
    )
    place: int | None = sharing.mmap(None, _PAGE, _PROT_READ | _PROT_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
    if place in (None, sharing.FAILED):
        return 0
    for at, byte in enumerate(
        bytes.fromhex(text).ljust(_OFFSETS[b"Py_AddPendingCall"], b"\xcc") + bytes.fromhex(pending)
    ):
        capi.Byte.from_address(place + at).value = byte
    return place if _mprotect(place, _PAGE, _PROT_READ | _PROT_EXEC) is None else 0


@atexit.register
def _let_go() -> None:
    """Do as the real function does from now on: there is no such interpreter to attach to when it has ended."""
    if _function:
        _mprotect(_function, _PAGE, _PROT_READ | _PROT_WRITE)
        capi.Byte.from_address(_function + _JUMP_AT).value = _JUMP_ALWAYS
        capi.Byte.from_address(_function + _PENDING_JUMP_AT).value = _PENDING_JUMP
        _mprotect(_function, _PAGE, _PROT_READ | _PROT_EXEC)


def _counter_offset() -> int:
    """Return where a thread state counts how often it was ensured; 0 if that cannot be found out."""
    state = capi.returning_address("PyThreadState_Get")()
    ensure, release = capi.returning_address("PyGILState_Ensure"), capi.returning_address("PyGILState_Release", Int)
    fields = [(offset, Int.from_address(state + offset)) for offset in range(8, _THREAD_STATE, 4)]
    before = [field.value for _, field in fields]
    ensure()
    between = [field.value for _, field in fields]
    release(0)
    after = [field.value for _, field in fields]
    found = [
        offset
        for (offset, _), one, two, three in zip(fields, before, between, after, strict=True)
        if two == one + 1 and three == one
    ]
    return found[0] if len(found) == 1 else 0
