"""Ticks: `@every` calls a method again and again. Only ever a hint to look, never a schedule."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import eventlet
from eventlet.event import Event as Signal
from nameko.extensions import Entrypoint, register_entrypoint

from shared.passport import service_passport
from shared.rpc.wire import Call, current_call


class Tick(Entrypoint):
    """Calls a method every so many seconds; a tick that comes while the last one still runs is skipped."""

    def __init__(self, seconds: float, **kwargs: Any) -> None:
        self.seconds = seconds
        self._is_stopping = False
        super().__init__(**kwargs)

    def start(self) -> None:
        self._thread = eventlet.spawn(self._tick_until_stopped)

    def stop(self) -> None:
        self._is_stopping = True
        self._thread.kill()

    def _tick_until_stopped(self) -> None:
        while not self._is_stopping:
            eventlet.sleep(self.seconds)
            finished = Signal()

            def on_result(_ctx: Any, result: Any, exc_info: Any, finished: Signal = finished) -> tuple[Any, Any]:
                finished.send(None)
                return result, None

            self.container.spawn_worker(self, (), {}, handle_result=on_result)
            finished.wait()


def every(*, seconds: float) -> Callable[[Any], Any]:
    """Declare a tick: `(self)`, on the service's own account. Only ever a hint to look, never a schedule."""

    def decorate(method: Any) -> Any:
        @wraps(method)
        def tick(self: Any) -> None:
            call = Call(service=self.name, method=method.__name__, passport=service_passport(self.name), arguments={})
            token = current_call.set(call)
            try:
                method(self)
            finally:
                current_call.reset(token)

        register_entrypoint(tick, Tick(seconds))
        return tick

    return decorate
