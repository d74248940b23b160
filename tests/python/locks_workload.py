"""Processes that write, and trample on each other's files: what is acknowledged has to be there.

`run(folder, seconds, ...)` is what the tests call for a second or two and `make soak` for minutes.
"""

import ctypes
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from conftest import at, integer, key, make_harness, make_view, sql_elsewhere

VIEW = make_view()


def put(harness, number):
    """Write one row; it is acknowledged when this returns."""
    harness.write(VIEW, (key(id=number), {"number": integer(number)}, at(0)))


def trample(path, stop, folder):
    """Open, read, close and copy the store's files in its own process."""
    while not stop.is_set():
        for end in ("", "-wal", "-shm"):
            try:
                with open(path + end, "rb") as file:  # noqa: PTH123
                    file.read(16)
            except FileNotFoundError:  # noqa: PERF203
                pass
        shutil.copyfile(path, folder / f"copy-{os.getpid()}")
        time.sleep(0.002)


def foreign_rows(path, who, until, told, *, keep):
    """Write rows by Python's own SQLite, on one connection or on a new one each time."""
    connect = lambda: sqlite3.connect(path, timeout=30, check_same_thread=False)
    connection = connect()
    step = 0
    while time.monotonic() < until:
        connection.execute("INSERT INTO foreign_rows VALUES (?)", (f"{who}-{step}",))
        connection.commit()
        told.append(f"{who}-{step}")
        step += 1
        if not keep:
            connection.close()
            connection = connect()
        time.sleep(0.003)
    connection.close()


def writer(folder, first, seconds, beside):
    """Be a process that writes, opens and closes engines, and has somebody beside it."""
    folder = Path(folder)
    harness = make_harness(folder)
    path = harness.config.online_store.path
    until, stop, theirs = time.monotonic() + seconds, threading.Event(), []
    if beside == "copies":
        threads = [threading.Thread(target=trample, args=(path, stop, folder))]
    else:
        # Not with copies: whose locks are POSIX's loses them to these.
        threads = [
            threading.Thread(
                target=foreign_rows,
                args=(path, f"{keep}-{first}", until, theirs),
                kwargs={"keep": keep},
            )
            for keep in (True, False)
        ]
    for thread in threads:
        thread.start()
    number = first
    while time.monotonic() < until:
        put(harness, number)
        print(number, flush=True)
        number += 1
        if number % 20 == 0:
            for engine in harness.store._engines.values():
                engine.close()
    stop.set()
    for thread in threads:
        thread.join()
    for row in theirs:
        print(row, flush=True)


OUTSIDER = """
import sqlite3, sys, time
until = time.monotonic() + float(sys.argv[2]); step = 0
while time.monotonic() < until:
    connection = sqlite3.connect(sys.argv[1], timeout=30)
    connection.execute("INSERT INTO foreign_rows VALUES (?)", (f"out-{step}",)); connection.commit()
    print(f"out-{step}", flush=True); step += 1; connection.close(); time.sleep(.002)
"""


def lost_rows(harness, numbers, theirs):
    """Which of the acknowledged rows are not there, as another process sees the file."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "print(c.execute('PRAGMA integrity_check').fetchone()[0]);"
        "print(*(row[0] for row in c.execute('SELECT number FROM shop_items')));"
        "print(*(row[0] for row in c.execute('SELECT name FROM foreign_rows')))"
    )
    command = [sys.executable, "-c", code, harness.config.online_store.path]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert seen[0] == "ok", seen[0]
    lost = set(map(str, numbers)) - set(seen[1].split())
    return sorted(lost | (set(theirs) - set(seen[2].split())))


def prepare(folder):
    """Make a store with our table, and one of somebody else's in the same file."""
    harness = make_harness(folder)
    harness.update([VIEW])
    # Elsewhere: in this process, where locks are POSIX's, ours would be lost.
    sql_elsewhere(harness, "CREATE TABLE foreign_rows (name TEXT)")
    return harness


def run_tramplers(folder, seconds):
    """Two such processes and an outsider; gives the lost rows and the count of all."""
    harness = prepare(folder)
    path = harness.config.online_store.path
    commands = [
        [
            sys.executable,
            "-W",
            "ignore",
            __file__,
            "writer",
            str(folder),
            first,
            str(seconds),
            beside,
        ]
        for first, beside in (("1000000", "copies"), ("2000000", "sqlite"))
    ]
    commands.append([sys.executable, "-c", OUTSIDER, path, str(seconds)])
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands
    ]
    said = [process.communicate()[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    rows = [row for lines in said for row in lines]
    numbers = [row for row in rows if row.isdigit()]
    theirs = [row for row in rows if not row.isdigit()]
    return lost_rows(harness, numbers, theirs), (len(numbers), len(theirs))


def c_fork():
    """Fork as a C library does: without Python's hooks."""
    return ctypes.PyDLL(None).fork()


def bare_fork():
    """Fork by a system call: without the C library's handlers, too."""
    number = {"x86_64": 57}.get(os.uname().machine)
    if number is None:
        return c_fork()
    return ctypes.PyDLL(None).syscall(number)


FORKS = {"python": os.fork, "c": c_fork, "bare": bare_fork}


def run_forks(folder, seconds, kind, writers=2):
    """Fork again and again while threads write; children read and write, by two stores.

    Gives the lost rows, the count of forks, and how children ended that failed.
    """
    harness = prepare(folder)
    acknowledged, stop, failed, forks = [], threading.Event(), [], 0

    def write(first):
        number = first
        while not stop.is_set():
            put(harness, number)
            acknowledged.append(number)
            number += 1
            time.sleep(0.005)

    threads = [threading.Thread(target=write, args=(1_000_000 * n,)) for n in range(1, writers + 1)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        forks += 1
        numbers = [-2 * forks, -2 * forks - 1]
        if not writers:
            put(harness, forks)
            acknowledged.append(forks)
        last = acknowledged[-1] if acknowledged else None
        child = FORKS[kind]()
        if child == 0:
            status = 1
            try:
                if last is not None:
                    assert harness.read(VIEW, key(id=last))[0][1]["number"] == integer(last)
                put(harness, numbers[0])
                # What the error of a store that cannot be used says.
                put(make_harness(folder), numbers[1])
                status = 0
            except BaseException as error:  # noqa: BLE001
                print("child:", repr(error)[:500], file=sys.stderr, flush=True)
            os._exit(status)
        if forks % 2:
            for engine in harness.store._engines.values():
                engine.close()
        deadline = time.monotonic() + 60
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, 9)
            time.sleep(0.001)
        if ended[1] == 0:
            acknowledged.extend(numbers)
        else:
            failed.append(os.waitstatus_to_exitcode(ended[1]))
    stop.set()
    for thread in threads:
        thread.join()
    return lost_rows(harness, acknowledged, []), forks, failed


if __name__ == "__main__":
    if sys.argv[1] == "writer":
        writer(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
    else:
        # A child that Python does not know of cannot have its threads beside it.
        writers = 2 if sys.argv[1] == "python" else 0
        print(run_forks(Path(sys.argv[2]), float(sys.argv[3]), sys.argv[1], writers))
