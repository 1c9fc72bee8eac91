"""`subiso.integrations.context`: context variables go along with work; and so what carriers do."""

import asyncio
import threading
from contextvars import ContextVar

import pytest

from subiso import Actor, Isolate, IsolatePool, SendError, carriers
from subiso.integrations import context
from subiso.testing import inline

LONG = 20  # seconds: the bound of a wait that should be over at once

request = ContextVar("request")
tenant = ContextVar("tenant", default="nobody")
other = ContextVar("other", default=0)


@pytest.fixture(autouse=True)
def carried():
    """Carry two variables, and leave none behind, set or carried."""
    context.carry(request, tenant)
    tokens = request.set("r1"), tenant.set("t1")
    yield
    request.reset(tokens[0])
    tenant.reset(tokens[1])
    context.drop(request, tenant, other)
    assert not carriers._carriers


def look(*_):
    return request.get(None), tenant.get(), other.get()


async def look_async():
    await asyncio.sleep(0)
    return look()


def change_and_look():
    before = look()
    request.set("changed")
    return before


def look_in_a_child():
    tenant.set("t2")
    return Isolate.run(look).result()


def items():
    yield look()
    yield look()


class Looker:
    def __init__(self):
        self.made = look()

    def look(self):
        return look()

    async def look_async(self):
        await asyncio.sleep(0)
        return look()


EXPECTED = "r1", "t1", 0


def test_run():
    """Values are there in functions and coroutines; a variable that is not carried is not set."""
    other.set(5)
    assert Isolate.run(look).result(LONG) == EXPECTED
    assert Isolate.run(look_async).result(LONG) == EXPECTED
    assert Isolate.run(look_in_a_child).result(LONG) == ("r1", "t2", 0)
    other.set(0)


def test_what_is_set_stays_there():
    """A task of a pool finds what belongs to it, not what others have set, nor what its worker was started with."""
    with IsolatePool(1) as pool:
        assert pool.submit(change_and_look).result(LONG) == EXPECTED
        assert pool.submit(change_and_look).result(LONG) == EXPECTED
        token = request.set("r2")
        assert pool.submit(look_async).result(LONG) == ("r2", "t1", 0)
        assert list(pool.map(look, [1, 2])) == [("r2", "t1", 0)] * 2
        assert list(pool.stream(items)) == [("r2", "t1", 0)] * 2
        request.reset(token)
        context.drop(request)
        assert pool.submit(look).result(LONG) == (None, "t1", 0)
    assert request.get() == "r1"


def test_actors():
    """Each call finds the context of its caller."""
    with Actor.spawn(Looker) as looker:
        assert looker.look().result(LONG) == EXPECTED
        token = request.set("r2")
        assert looker.look_async().result(LONG) == ("r2", "t1", 0)
        request.reset(token)
        assert looker.look().result(LONG) == EXPECTED


def test_streams_of_isolates():
    """A generator finds it as well."""
    assert list(Isolate.stream(items)) == [EXPECTED] * 2


def test_recycled_interpreters():
    """An isolate carries nothing that the last one in its interpreter has carried."""
    Isolate.run(look).result(LONG)
    context.drop(request, tenant)
    assert Isolate.run(what_is_carried).result(LONG) == 0


def what_is_carried():
    return len(carriers._carriers) + len(carriers.state)


def test_inline():
    """What is run inline finds it, too."""
    with inline(), IsolatePool(1) as pool:
        assert Isolate.run(look).result() == EXPECTED
        assert Isolate.run(look_async).result() == EXPECTED
        assert pool.submit(look).result() == EXPECTED
        assert list(pool.map(look, [1])) == [EXPECTED]
        assert list(pool.stream(items)) == [EXPECTED] * 2
        with Actor.spawn(Looker) as looker:
            assert looker.look().result() == EXPECTED


def test_values_that_cannot_be_sent():
    """They fail where the work is sent, and name the variable."""
    token = request.set(threading.Lock())
    with pytest.raises(SendError, match=r"test_context:request'\]: lock objects cannot be sent"):
        Isolate.run(look)
    request.reset(token)


def test_wrong_use():
    """`carry` takes context variables; carrying twice is once; dropping what is not carried does nothing."""
    with pytest.raises(TypeError, match="carry takes context variables, not 'request'"):
        context.carry("request")
    context.carry(request)
    context.drop(other)
    assert Isolate.run(look).result(LONG) == EXPECTED


def test_variables_of_main(script):
    """A variable of a script travels with the functions that use it, with its default, if it is carried."""
    done = script(
        """
        from contextvars import ContextVar
        from subiso import Isolate, SendError
        from subiso.integrations import context

        user, colour = ContextVar("user"), ContextVar("colour", default="red")

        def look():
            return user.get(None), colour.get()

        try:
            Isolate.run(look)
        except SendError as error:
            print(error)
        context.carry(user, colour)
        print(Isolate.run(look).result())
        user.set("ann")
        print(Isolate.run(look).result())
        colour.set("blue")
        print(Isolate.run(lambda: Isolate.run(look).result()).result())
        """
    )
    assert done.err == ""
    first, *rest = done.out.splitlines()
    assert "carry it" in first
    assert rest == ["(None, 'red')", "('ann', 'red')", "('ann', 'blue')"]
