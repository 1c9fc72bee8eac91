"""What is known of single packages with compiled code: data, for the loader and its tests, and no code.

A new line needs a reason, and a package for which `subiso check` showed that it is needed.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    class Facts(TypedDict, total=False):
        """What the loader must know.

        Attributes:
            refused: why no isolate should load it; it is loaded nevertheless under the policy ``all``.
            drifts: why it is refused on those versions of Python where immortal objects may become mortal.
            warning: the beginning of a UserWarning that follows its loading and does not hold for a private copy.
        """

        refused: str
        drifts: str
        warning: str


MODULES: "dict[str, Facts]" = {
    # Module, or package, with everything in it -> facts. The longest name counts.
    "readline": {"refused": "its library drives the process's terminal, without a thought for threads"},
    "torch": {
        "refused": "its libraries have one registry for the process, and end the process when a second copy registers"
    },
    "tables": {
        "drifts": "its modules count references to objects that all isolates share, which crashes on Python before 3.14"
    },
    "numpy._core._multiarray_umath": {"warning": "NumPy was imported from a Python sub-interpreter"},
    "numpy.core._multiarray_umath": {"warning": "NumPy was imported from a Python sub-interpreter"},
}

PRIVATE_LIBRARIES: dict[str, str] = {
    # Beginning of the name of a bundled library -> why each isolate needs a copy of it. Those that call Python's C API
    # are found without being named here.
    "libblosc2": "PyTables compresses in its one global context, under a GIL of which each isolate has another one",
    "libhdf5": "h5py and PyTables call it under a lock of their own, of which each isolate has another one",
    "libllvmlite": "llvmlite calls LLVM under a lock of its own, of which each isolate has another one",
}

ONE_THREAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # Part of the name of a library that computes in threads -> the environment variables by which users set how many,
    # and the functions, of which a build has one, that set it.
    "openblas": (
        ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"),
        (
            "scipy_openblas_set_num_threads64_",
            "scipy_openblas_set_num_threads",
            "openblas_set_num_threads64_",
            "openblas_set_num_threads",
        ),
    ),
    "libmkl_rt": (("MKL_NUM_THREADS", "OMP_NUM_THREADS"), ("MKL_Set_Num_Threads",)),
}

STAND_INS: "dict[str, tuple[tuple[str, object], ...]]" = {
    # Module that is built into CPython and refuses isolates -> the functions of its harmless stand-in, and what they
    # return. What the module controls belongs to the process, and stays as main has set it.
    "faulthandler": (
        ("enable disable register dump_traceback dump_traceback_later cancel_dump_traceback_later dump_c_stack", None),
        ("is_enabled unregister", False),
    ),
    "_tracemalloc": (
        ("start stop clear_traces reset_peak _get_object_traceback", None),
        ("is_tracing", False),
        ("get_traceback_limit", 1),
        ("get_tracemalloc_memory", 0),
        ("get_traced_memory", (0, 0)),
        ("_get_traces", ()),
    ),
}

WITHOUT: dict[str, str] = {
    # Module -> what it imports where that is installed, though all that it takes from there is the standard library's
    # own; so in an isolate it does without (lazy.py).
    "msgspec._utils": "typing_extensions",  # with inspect, which that loads: 1.0 MB, and half of msgspec's loading time
}

LAZY: dict[str, str] = {
    # Module that an isolate executes when it is used -> who imports it, as a rule without need, and what it takes.
    # It must not change anything outside itself when it is executed.
    "msgspec.inspect": "msgspec: 0.13 MB",
    "msgspec.json": "msgspec, and with it what makes JSON schemas: 0.09 MB",
    "msgspec.toml": "msgspec: 0.01 MB",
    "msgspec.yaml": "msgspec: 0.01 MB",
}
