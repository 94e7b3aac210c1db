"""Ctrl-C and SIGTERM."""

import os
import signal

import pytest

from paw.runs.interrupt import InterruptGuard


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_interrupt_asks_and_the_second_stops(
    capsys: pytest.CaptureFixture[str], number: signal.Signals
):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), InterruptGuard() as guard:
        os.kill(os.getpid(), number)
        assert guard.asked
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) is before
    assert "Ctrl-C again stops at once" in capsys.readouterr().err


def test_where_there_is_nothing_to_finish_the_first_stops(capsys: pytest.CaptureFixture[str]):
    with InterruptGuard() as guard:
        with pytest.raises(KeyboardInterrupt), guard.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        assert not guard.asked and capsys.readouterr().err == ""
        os.kill(os.getpid(), signal.SIGTERM)
        assert guard.asked
