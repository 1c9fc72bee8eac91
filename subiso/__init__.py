"""Dart's isolates for Python: real parallelism inside one process, with the packages you already use.

The map of the package, from policy down to mechanism; imports point downwards only:

    supervisor                  isolates that are started again
        children                    what it supervises
    actors  pool                objects in isolates; an executor of isolates
        crew  queues                its workers; what waits for them
        mending                     what Ctrl-C has torn of that
        mapping  chunks             map: results in order; items, a chunk at a time
        progress  inquiry           what it does: live; where isolates stand
    lines                       the way to an actor
    members  tasks              a pool's workers, its tasks
        alarms  statistics          its deadlines; its figures
    groups                      isolates that end together
    isolate  programs  settings the handles on isolates; other programs in them; how many there may be
        starting                    how they are started
    acting  workers             the inside of an actor's isolate, and of a worker's
    streams  buffers            generators in isolates; memory that is handed over
    listening   futures         handlers of ports; results
    requests  responses         one answer to one question
    registry                    names of send ports
    uncaught                    the errors of an isolate
    ports  sending              what messages go through
    entry                       the inside of an isolate
        reports (records)           what it reports to main: warnings, log records
    carriers                    what goes along with work, for integrations
    coroutines                  coroutines in isolates
    messages  typed  failures   what can be sent, and how
    errors  capabilities  _typing
    _pickling/                  functions, classes and Structs by value
    _kernel/                    what makes isolates run; it knows no policy
        faults                      what tests put in at any step; loaded by nothing else
        nursery (limits)  worker    interpreters: made and lent in main; lived in
        forks  exits  interrupt  waking  scrub (leftovers)  own_builtins  lazy
        extensions                  packages with compiled code, by
          loading  libraries        private copies: of modules, and of libraries that they bring
          foreign                   threads that libraries start
          copies  pyinit  sharing  elf  capi
          packages                  what is known of single packages: data
        attendant  waiting (loops)  output  setting  asking
        node                        this interpreter's place among the others
        control  gate               what may be asked of an isolate; where its events stop
        mailbox  post  waitables    how threads wait; what arrives and is sent; what is waited for
        links  semaphore            streams of records through shared memory
        parcels  regions            messages too large for these; memory that is handed over
        arena  doorbell  protocol   where everything lies; waking; what travels
        naming                      what the system calls threads
        insisting                   steps that must not be left out
        interpreters                the only file that knows Python versions
    integrations/               what joins it to others (dask, joblib, OpenTelemetry); the core imports none of it
    cli/                        the command line
    testing/                    for the tests of programs that use isolates

Names are loaded when they are first used: inside an isolate only what it needs is imported.
"""

from subiso._kernel import interpreters as _interpreters

_interpreters.check()

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subiso._kernel.interrupt import IsolateKilled as IsolateKilled
    from subiso.actors import Actor as Actor
    from subiso.buffers import Buffer as Buffer
    from subiso.buffers import Transferable as Transferable
    from subiso.capabilities import Capability as Capability
    from subiso.errors import BrokenIsolatePool as BrokenIsolatePool
    from subiso.errors import BufferSendError as BufferSendError
    from subiso.errors import IsolateError as IsolateError
    from subiso.errors import IsolateKilledError as IsolateKilledError
    from subiso.errors import IsolateSpawnError as IsolateSpawnError
    from subiso.errors import IsolateTimeoutError as IsolateTimeoutError
    from subiso.errors import MessageTypeError as MessageTypeError
    from subiso.errors import NoSendersError as NoSendersError
    from subiso.errors import PortClosedError as PortClosedError
    from subiso.errors import PortEmpty as PortEmpty
    from subiso.errors import PortFull as PortFull
    from subiso.errors import RemoteError as RemoteError
    from subiso.errors import RemoteTraceback as RemoteTraceback
    from subiso.errors import SendError as SendError
    from subiso.errors import SupervisorError as SupervisorError
    from subiso.futures import IsolateFuture as IsolateFuture
    from subiso.groups import IsolateGroup as IsolateGroup
    from subiso.inquiry import dump_stacks as dump_stacks
    from subiso.isolate import Isolate as Isolate
    from subiso.isolate import compute as compute
    from subiso.listening import Subscription as Subscription
    from subiso.mapping import MapIterator as MapIterator
    from subiso.pool import IsolatePool as IsolatePool
    from subiso.ports import ReceivePort as ReceivePort
    from subiso.ports import aselect as aselect
    from subiso.ports import select as select
    from subiso.registry import add_tags as add_tags
    from subiso.registry import lookup as lookup
    from subiso.registry import lookup_all as lookup_all
    from subiso.registry import register as register
    from subiso.registry import remove_tags as remove_tags
    from subiso.registry import unregister as unregister
    from subiso.requests import Request as Request
    from subiso.responses import SingleResponseChannel as SingleResponseChannel
    from subiso.responses import asingle_response as asingle_response
    from subiso.responses import single_response as single_response
    from subiso.sending import SendPort as SendPort
    from subiso.settings import configure as configure
    from subiso.statistics import Durations as Durations
    from subiso.statistics import Statistics as Statistics
    from subiso.streams import Stream as Stream
    from subiso.supervisor import Child as Child
    from subiso.supervisor import Supervisor as Supervisor
    from subiso.uncaught import UncaughtErrors as UncaughtErrors
    from subiso.workers import worker_state as worker_state

_HOMES = {
    "Actor": "actors",
    "Buffer": "buffers",
    "Transferable": "buffers",
    "BufferSendError": "errors",
    "Isolate": "isolate",
    "compute": "isolate",
    "configure": "settings",
    "dump_stacks": "inquiry",
    "Capability": "capabilities",
    "IsolateFuture": "futures",
    "IsolateGroup": "groups",
    "IsolatePool": "pool",
    "MapIterator": "mapping",
    "Stream": "streams",
    "Statistics": "statistics",
    "Durations": "statistics",
    "worker_state": "workers",
    "Subscription": "listening",
    "Request": "requests",
    "SingleResponseChannel": "responses",
    "single_response": "responses",
    "asingle_response": "responses",
    "register": "registry",
    "unregister": "registry",
    "lookup": "registry",
    "lookup_all": "registry",
    "add_tags": "registry",
    "remove_tags": "registry",
    "ReceivePort": "ports",
    "SendPort": "sending",
    "select": "ports",
    "aselect": "ports",
    "UncaughtErrors": "uncaught",
    "IsolateKilled": "_kernel.interrupt",
    "BrokenIsolatePool": "errors",
    "IsolateError": "errors",
    "IsolateKilledError": "errors",
    "IsolateSpawnError": "errors",
    "IsolateTimeoutError": "errors",
    "MessageTypeError": "errors",
    "NoSendersError": "errors",
    "PortClosedError": "errors",
    "PortEmpty": "errors",
    "PortFull": "errors",
    "RemoteError": "errors",
    "RemoteTraceback": "errors",
    "SendError": "errors",
    "SupervisorError": "errors",
    "Supervisor": "supervisor",
    "Child": "supervisor",
}

__all__ = [*_HOMES]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'subiso' has no attribute {name!r}")
    import sys

    __import__(module := f"subiso.{home}")
    value = getattr(sys.modules[module], name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
