"""Honest programs that use the standard library as the judges have it: files, event loops, streams, threads.

All must pass, in both tiers, and leave nothing behind.
"""

import pytest

from services.verifier.sandbox.executions import Outcome, Task
from tests.verifier.judge import AC, LIMITS, RE, Judge

pytestmark = pytest.mark.asyncio(loop_scope="session")

_ADD = "a, b = map(int, {read}.split())\nprint(a + b)\n"
_OUT = _ADD.format(read="input()") + "import sys\n"

STREAMS = {
    "stdout closed": _OUT + "sys.stdout.close()",
    "stdout closed before the exit": _OUT + "sys.stdout.close()\nsys.exit(0)",
    "stdout closed in a handler": "import atexit, sys\natexit.register(sys.stdout.close)\n" + _OUT,
    "stdout gone": _OUT + "sys.stdout.flush()\nsys.stdout = None",
    "stdout gone without a flush": _OUT + "sys.stdout = None",
    "stdout deleted": _OUT + "del sys.stdout",
    "stdout replaced at the end": _OUT + "import io\nsys.stdout = io.StringIO()",
    "stdout replaced by an object of its own": _OUT
    + "class Mute:\n  def write(self, text): pass\nsys.stdout = Mute()\nprint('debug')",
    "stdout replaced by one that cannot be flushed": _OUT
    + "class Mute:\n  def write(self, text): pass\n  def flush(self): raise RuntimeError\nsys.stdout = Mute()",
    "stdout redirected for a while": "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n"
    "  print('debug')\n" + _OUT,
    "stdout detached": "import sys\nout = sys.stdout.detach()\nout.write(b'8\\n')\nout.flush()",
    "stdout wrapped again": "import io, sys\n"
    "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='ascii', line_buffering=True)\n" + _OUT,
    "stdout reconfigured": "import sys\nsys.stdout.reconfigure(line_buffering=True)\n" + _OUT,
    "stdout opened anew, and closed": "import sys\nsys.stdout = open(1, 'w', buffering=2**16)\n"
    + _OUT
    + "sys.stdout.close()",
    "descriptor 1 closed after a flush": _OUT + "import os\nsys.stdout.flush()\nos.close(1)",
    "all descriptors closed after a flush": _OUT + "import os\nsys.stdout.flush()\nos.closerange(0, 3)",
    "stderr closed": "import sys\nsys.stderr.close()\n" + _OUT,
    "stderr gone": _OUT + "sys.stderr = None\nsys.exit()",
    "stdin closed": _OUT + "sys.stdin.close()",
    "stdin gone": _OUT + "sys.stdin = None",
    "stdin replaced": "import io, sys\nsys.stdin = io.StringIO(sys.stdin.read())\n" + _OUT,
}

INPUTS = {
    "os.fstat and os.read": "import os, io\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\n"
    + _ADD.format(read="input()"),
    "mmap of descriptor 0": "import mmap\ndata = mmap.mmap(0, 0, access=mmap.ACCESS_READ)\n"
    + _ADD.format(read="data[:]"),
    "mmap of stdin, line by line": "import mmap, sys\nfile = mmap.mmap(sys.stdin.fileno(), 0, prot=mmap.PROT_READ)\n"
    + _ADD.format(read="file.readline()"),
    "mmap with the size that stdin has": "import mmap, os\nfile = mmap.mmap(0, os.fstat(0).st_size, mmap.MAP_PRIVATE)\n"
    + _ADD.format(read="file.read()"),
    "seek and read again": "import sys\nsys.stdin.read()\nsys.stdin.seek(0)\n" + _ADD.format(read="sys.stdin.read()"),
    "os.lseek and read again": "import os\nos.read(0, 99)\nos.lseek(0, 0, 0)\n" + _ADD.format(read="os.read(0, 99)"),
    "the size by seek": "import os, sys\nsize = sys.stdin.buffer.seek(0, 2)\nsys.stdin.buffer.seek(0)\n"
    + _ADD.format(read="sys.stdin.buffer.read(size)"),
    "os.pread": "import os\n" + _ADD.format(read="os.pread(0, 99, 0)"),
    "os.readv": "import os\npart = bytearray(99)\nn = os.readv(0, [part])\n" + _ADD.format(read="part[:n].decode()"),
    "sys.stdin.tell": "import sys\nassert sys.stdin.tell() == 0 and sys.stdin.seekable()\n"
    + _ADD.format(read="input()"),
    "stdin is a file": "import os, stat\nassert stat.S_ISREG(os.fstat(0).st_mode) and not os.isatty(0)\n"
    + _ADD.format(read="input()"),
    "input": _ADD.format(read="input()"),
    "sys.stdin.buffer": "import sys\n" + _ADD.format(read="sys.stdin.buffer.readline()"),
    "open(0)": _ADD.format(read="open(0).read()"),
    "open('/dev/stdin')": _ADD.format(read="open('/dev/stdin').readline()"),
    "os.open of '/dev/stdin'": "import os\nassert os.path.exists('/dev/stdin')\n"
    + _ADD.format(read="os.read(os.open('/dev/stdin', os.O_RDONLY), 99)"),
    "pathlib of /dev/stdin": "import pathlib\n" + _ADD.format(read="pathlib.Path('/dev/stdin').read_bytes()"),
    "fileinput": "import fileinput\nfor line in fileinput.input():\n  "
    + _ADD.format(read="line").replace("\n", "\n  "),
    "select": "import select\nselect.select([0], [], [])\n" + _ADD.format(read="input()"),
    "selectors of a file": "import selectors, sys\ns = selectors.SelectSelector()\n"
    "s.register(0, selectors.EVENT_READ)\n"
    "s.select()\n" + _ADD.format(read="input()"),
}

FILES = {
    "TemporaryFile": "import tempfile\nf = tempfile.TemporaryFile('w+')\nf.write(input())\nf.seek(0)\n"
    + _ADD.format(read="f.read()"),
    "NamedTemporaryFile": "import tempfile\nwith tempfile.NamedTemporaryFile('w+') as f:\n"
    "  f.write(input()); f.flush()\n  text = open(f.name).read()\n" + _ADD.format(read="text"),
    "NamedTemporaryFile that stays": "import os, tempfile\nf = tempfile.NamedTemporaryFile('w', delete=False)\n"
    "f.write(input()); f.close()\ntext = open(f.name).read(); os.unlink(f.name)\n" + _ADD.format(read="text"),
    "mkstemp": "import os, tempfile\nfd, path = tempfile.mkstemp()\nos.write(fd, input().encode()); os.close(fd)\n"
    + _ADD.format(read="open(path).read()"),
    "mkdtemp": "import os, shutil, tempfile\nd = tempfile.mkdtemp()\nopen(os.path.join(d, 'x'), 'w').write(input())\n"
    "text = open(d + '/x').read(); shutil.rmtree(d)\n" + _ADD.format(read="text"),
    "TemporaryDirectory": "import pathlib, tempfile\nwith tempfile.TemporaryDirectory() as d:\n"
    "  p = pathlib.Path(d) / 'a' / 'b'; p.mkdir(parents=True); (p / 'x').write_text(input())\n"
    "  text = (p / 'x').read_text()\n" + _ADD.format(read="text"),
    "SpooledTemporaryFile": "import tempfile\nf = tempfile.SpooledTemporaryFile(4, 'w+')\nf.write(input()); f.seek(0)\n"
    + _ADD.format(read="f.read()"),
    "a file in the working folder": "open('in.txt', 'w').write(input())\n" + _ADD.format(read="open('in.txt').read()"),
    "a file in /tmp": "open('/tmp/in.txt', 'w').write(input())\n" + _ADD.format(read="open('/tmp/in.txt').read()"),
    "a file renamed, cut and deleted": "import os\nopen('x', 'w').write(input() + 'rest')\nos.rename('x', 'y')\n"
    "with open('y', 'r+') as f: f.truncate(3); text = f.read()\nos.remove('y')\nassert not os.path.exists('y')\n"
    + _ADD.format(read="text"),
    "a folder walked": "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()\n"
    "assert [f for _, _, f in os.walk('.')] == [[], [], ['c']]\n" + _ADD.format(read="input()"),
    "a file copied": "import shutil\nopen('x', 'w').write(input())\nshutil.copyfile('x', 'y')\nshutil.move('y', 'z')\n"
    + _ADD.format(read="open('z').read()"),
    "os.listdir of the working folder": "import os\nassert os.listdir('.') == os.listdir() == []\n"
    + _ADD.format(read="input()"),
    "os.getcwd and os.scandir": "import os, pathlib\nassert os.getcwd() == str(pathlib.Path.cwd())\n"
    "assert list(os.scandir(os.getcwd())) == list(pathlib.Path('.').iterdir()) == []\n" + _ADD.format(read="input()"),
    "os.chdir": "import os\nos.mkdir('a'); os.chdir('a'); open('x', 'w').close(); os.chdir('..')\n"
    "assert os.listdir('a') == ['x']\n" + _ADD.format(read="input()"),
    "glob and a local input file that is not there": "import glob, os, sys\nassert glob.glob('*.txt') == []\n"
    "if os.path.exists('input.txt'): sys.stdin = open('input.txt')\n" + _ADD.format(read="input()"),
    "a module of its own": "import sys\nopen('helper.py', 'w').write('def add(a, b): return a + b')\n"
    "sys.path.insert(0, '.')\nimport helper\nprint(helper.add(*map(int, input().split())))",
    "a mapped file": "import mmap\nf = open('x', 'w+b')\nf.write(input().encode()); f.flush()\n"
    + _ADD.format(read="mmap.mmap(f.fileno(), 0)[:]"),
    "archives and compression": "import gzip, io, tarfile, zipfile\nwith zipfile.ZipFile('x.zip', 'w') as z:\n"
    "  z.writestr('a', input())\n" + _ADD.format(read="zipfile.ZipFile('x.zip').read('a')"),
    "pickle in a file": "import pickle\npickle.dump(input(), open('p', 'wb'))\n"
    + _ADD.format(read="pickle.load(open('p', 'rb'))"),
    "csv in a file": "import csv\nwith open('t.csv', 'w', newline='') as f: csv.writer(f).writerow(input().split())\n"
    "print(sum(map(int, next(csv.reader(open('t.csv'))))))",
}

LOOPS = {
    "asyncio.run": "import asyncio\nasync def main():\n  a, b = map(int, input().split())\n  print(a + b)\n"
    "asyncio.run(main())",
    "asyncio.gather and sleep": "import asyncio\nasync def one(n):\n  await asyncio.sleep(0.01)\n  return n\n"
    "async def main(): print(sum(await asyncio.gather(*map(one, map(int, input().split())))))\nasyncio.run(main())",
    "an event loop by hand": "import asyncio\nloop = asyncio.new_event_loop()\nasync def f(): return 8\n"
    "print(loop.run_until_complete(f()))\nloop.close()",
    "asyncio queues and tasks": "import asyncio\nasync def main():\n  q = asyncio.Queue()\n"
    "  async def put():\n    for n in map(int, input().split()): await q.put(n)\n"
    "  async with asyncio.TaskGroup() as g:\n    g.create_task(put())\n    t = [await q.get(), await q.get()]\n"
    "  print(sum(t))\nasyncio.run(main())",
    "asyncio.to_thread": "import asyncio\n"
    "async def main(): print(await asyncio.to_thread(sum, map(int, input().split())))\nasyncio.run(main())",
    "asyncio time-outs": "import asyncio\nasync def main():\n  try: await asyncio.wait_for(asyncio.sleep(60), 0.01)\n"
    "  except asyncio.TimeoutError: print(8)\nasyncio.run(main())",
    "asyncio streams over a pair": "import asyncio, socket\nasync def main():\n  a, b = socket.socketpair()\n"
    "  r, w = await asyncio.open_connection(sock=a)\n  _, w2 = await asyncio.open_connection(sock=b)\n"
    "  w2.write(input().encode()); w2.close()\n  print(sum(map(int, (await r.read()).split())))\n  w.close()\n"
    "asyncio.run(main())",
    "a pair of sockets": "import socket\na, b = socket.socketpair()\na.sendall(input().encode()); a.close()\n"
    + _ADD.format(read="b.recv(99)"),
    "selectors over a pipe": "import os, selectors\nr, w = os.pipe()\ns = selectors.DefaultSelector()\n"
    "s.register(r, selectors.EVENT_READ)\nos.write(w, input().encode())\nassert s.select(5)\n"
    + _ADD.format(read="os.read(r, 99)"),
    "epoll": "import os, select\nr, w = os.pipe()\ne = select.epoll()\ne.register(r, select.EPOLLIN)\n"
    "os.write(w, input().encode())\nassert e.poll(5)\n" + _ADD.format(read="os.read(r, 99)"),
    "eventfd": "import os\ne = os.eventfd(3)\nos.eventfd_write(e, 5)\nprint(os.eventfd_read(e))",
    "a pool of threads": "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n"
    "  print(sum(pool.map(int, input().split())))",
    "multiprocessing.dummy": "from multiprocessing.dummy import Pool\nwith Pool(4) as pool:\n"
    "  print(sum(pool.map(int, input().split())))",
    "multiprocessing.pool.ThreadPool": "from multiprocessing.pool import ThreadPool\n"
    "print(sum(ThreadPool(2).imap_unordered(int, input().split())))",
    "locks and queues of multiprocessing": "import multiprocessing as mp\nlock, queue = mp.RLock(), mp.Queue()\n"
    "with lock, lock, mp.Semaphore(2): queue.put(input())\nprint(sum(map(int, queue.get(timeout=5).split())))",
    "queue between threads": "import queue, threading\nq = queue.Queue()\n"
    "threading.Thread(target=lambda: [q.put(int(n)) for n in input().split()], daemon=True).start()\n"
    "print(q.get(timeout=5) + q.get(timeout=5))",
    "threading.Timer": "import threading\nt = threading.Timer(0.01, lambda: print(8))\nt.start(); t.join()",
    "an alarm that never rings": "import signal\nsignal.alarm(60)\nsignal.setitimer(signal.ITIMER_REAL, 60)\n"
    + _ADD.format(read="input()"),
    "an alarm that rings": "import signal, time\ndef ring(*_): raise TimeoutError\n"
    "signal.signal(signal.SIGALRM, ring)\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.01)\ntry: time.sleep(5)\nexcept TimeoutError: print(8)",
}
_STACK = (
    "import sys, threading\nsys.setrecursionlimit(10**9)\nthreading.stack_size({size})\n"
    "def main(): print(sum(map(int, input().split())))\nt = threading.Thread(target=main)\nt.start()\nt.join()\n"
)
STACKS = {
    "of 512 MiB": _STACK.format(size="2**29"),
    "of 256 MiB": _STACK.format(size="1 << 28"),
    "of 2 GiB less a byte": _STACK.format(size="2**32 // 2 - 1"),
    "of 1 GiB": _STACK.format(size="2**30"),
    "of 64 MB": _STACK.format(size="64 * 10**6 // 4096 * 4096"),
    "of 512 MiB, one after the other": _STACK.format(size="2**29") + "t = threading.Thread(target=int)\nt.start()\n",
    "of 512 MiB, four at once": "import threading\nthreading.stack_size(2**29)\nout = []\nwait = threading.Barrier(4)\n"
    "def run(): wait.wait(); out.append(2)\nts = [threading.Thread(target=run) for _ in range(4)]\n"
    "[t.start() for t in ts]; [t.join() for t in ts]\nprint(sum(out))",
    "of 512 MiB, and used": "import functools, sys, threading\nsys.setrecursionlimit(10**7)\n"
    "threading.stack_size(2**29)\n"
    "@functools.cache\ndef f(n): return 8 if n == 0 else f(n - 1)\n"
    "t = threading.Thread(target=lambda: print(f(100000)))\nt.start(); t.join()",
    "of 512 MiB beside 300 MB of data": _STACK.format(size="2**29").replace(
        "main():", "main():\n  a = bytearray(3 * 10**8);"
    ),
    "that stays as it was set": "import threading\nthreading.stack_size(2**29)\nt = threading.Thread(target=int)\n"
    "t.start(); t.join()\nassert threading.stack_size() == 2**29\nprint(8)",
}
MODULES = {
    "what tells about the machine": "import locale, os, platform, shutil, sys\nassert os.cpu_count() >= 1\n"
    "locale.setlocale(locale.LC_ALL, '')\nplatform.system(), shutil.which('ls'), os.getpid(), os.getlogin\nprint(8)",
    "random numbers of the system": "import os, random, secrets, uuid\n"
    "random.SystemRandom().random(), secrets.token_hex(), uuid.uuid4(), os.urandom(4)\nprint(8)",
    "hashes": "import hashlib, hmac, zlib\nassert hashlib.sha256(b'x').hexdigest()[:4] == '2d71'\n"
    "hashlib.md5(b''), hmac.new(b'k', b'm', 'sha1'), zlib.crc32(b'')\nprint(8)",
    "sqlite3 in memory": "import sqlite3\nc = sqlite3.connect(':memory:')\nc.execute('create table t (n int)')\n"
    "c.executemany('insert into t values (?)', [(int(n),) for n in input().split()])\n"
    "print(c.execute('select sum(n) from t').fetchone()[0])",
    "time zones": "import datetime, zoneinfo\n"
    "paris = zoneinfo.ZoneInfo('Europe/Paris')\n"
    "assert datetime.datetime(2024, 7, 1, tzinfo=paris).utcoffset().seconds == 7200\nprint(8)",
    "decimals and statistics": "import decimal, statistics\nprint(int(decimal.Decimal('4') * statistics.mean([1, 3])))",
    "logging": "import logging\nlogging.basicConfig(level=logging.DEBUG)\nlogging.info('debug')\nprint(8)",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n  def test(self): self.assertEqual(3 + 5, 8)\n"
    "unittest.main(exit=False)\nprint(8)",
    "doctest": 'import doctest\ndef f(n):\n  """\n  >>> f(3)\n  8\n  """\n  return n + 5\n'
    "assert doctest.testmod().failed == 0\nprint(f(3))",
    "multiprocessing unused": "import multiprocessing as mp\nmp.cpu_count(), mp.current_process().name\nprint(8)",
    "many imports": "import argparse, ast, base64, configparser, cProfile, ctypes, dis, email, fcntl, ftplib, getpass\n"
    "import html, http.client, inspect, ipaddress, json, mmap, optparse, pdb, pprint, resource, sched, shlex, smtplib\n"
    "import ssl, symtable, timeit, token, trace, traceback, tracemalloc, turtle if False else types\n"
    "import urllib.request, weakref, xml.etree.ElementTree, xmlrpc.client\nprint(8)".replace(
        "turtle if False else ", ""
    ),
    "readline": "try: import readline\nexcept ImportError: pass\nprint(8)",
    "profiling and memory": "import cProfile, io, resource, tracemalloc\ntracemalloc.start()\n"
    "cProfile.Profile().runcall(sum, range(9))\nresource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nprint(8)",
    "ctypes": "import ctypes\nassert ctypes.CDLL(None).abs(-8) == 8\nprint(ctypes.c_int(8).value)",
    "the end as the interpreter makes it": "import atexit, weakref\nclass A: pass\na = A()\n"
    "weakref.finalize(a, print, 8)",
}
GROUPS = {"streams": STREAMS, "input": INPUTS, "files": FILES, "loops": LOOPS, "stacks": STACKS, "modules": MODULES}
ALL = {f"{group}: {name}": program for group, programs in GROUPS.items() for name, program in programs.items()}


@pytest.mark.parametrize("name", ALL)
async def test_an_honest_program_passes(judge: Judge, name: str) -> None:
    found = await judge.grade(ALL[name])
    assert (found.score, found.reason) == (1.0, "all_tests"), await judge.run(ALL[name], Task(stdin=b"3 5\n"))


@pytest.mark.parametrize("kind", ["files: TemporaryFile", "loops: asyncio.run", "input: mmap of descriptor 0"])
async def test_it_passes_on_many_inputs_in_a_row(judge: Judge, kind: str) -> None:
    tests: dict[str, object] = {"inputs": [f"{n} 5\n" for n in range(5)], "outputs": [str(n + 5) for n in range(5)]}
    assert (await judge.grade(ALL[kind], tests)).score == 1.0
    await judge.is_as_before()


async def test_a_method_may_use_them_too(judge: Judge) -> None:
    program = """
class Solution:
    def solve(self, a, b):
        import asyncio, tempfile
        async def add():
            with tempfile.TemporaryFile("w+") as file:
                file.write(str(a + b))
                file.seek(0)
                return int(file.read())
        return asyncio.run(add())
"""
    tests: dict[str, object] = {"inputs": [[3, 5]], "outputs": [8], "fn_name": "solve"}
    assert (await judge.grade(program, tests)).score == 1.0


async def test_empty_input_is_an_empty_file(judge: Judge) -> None:
    program = "import os, sys\nprint(os.fstat(0).st_size, repr(sys.stdin.read()), repr(os.read(0, 9)))"
    assert (await judge.run(program)).stdout == b"0 '' b''\n"


async def test_input_of_one_test_is_not_changed_for_the_next(judge: Judge) -> None:
    program = b"""
import ctypes, mmap, os
for change in (lambda: os.write(0, b"9 9\\n"), lambda: os.ftruncate(0, 0), lambda: mmap.mmap(0, 0)):
    try: change()
    except OSError: pass
print(os.pread(0, 99, 0))
"""
    async with judge.sandbox.program(program) as running:
        outputs = [(await running.run(Task(stdin=b"3 5\n"), LIMITS)).stdout for _ in range(3)]
    assert outputs == [b"b'3 5\\n'\n"] * 3


async def test_output_that_could_not_be_written_is_a_failure(judge: Judge) -> None:
    for program in ("import os\nos.close(1)\nprint(8)", "import sys\nsys.stdout.close()\nprint(8)"):
        assert (await judge.grade(program)).tests[0].verdict is RE


# ---------------------------------------------------------------- the scratch folder


async def test_each_test_finds_an_empty_folder(judge: Judge) -> None:
    program = b"""
import os, tempfile
print(os.listdir("."), os.listdir(tempfile.gettempdir()))
os.mkdir("a", 0)
deep = "."
for _ in range(60): deep += "/" + "d" * 200; os.mkdir(deep) if len(deep) < 4000 else None
for n in range(20): open(f"{n}", "w").write("x")
open(".hidden", "w").close()
os.mkdir("1x"), os.mkdir("1x/1"), os.mkdir("1x/2")
"""
    for _ in range(2):
        async with judge.sandbox.program(program) as running:
            for _ in range(2):
                execution = await running.run(Task(), LIMITS)
                assert (execution.outcome, execution.stdout) == (Outcome.OK, b"[] []\n"), execution
    await judge.is_as_before()


async def test_the_folder_has_room_for_some_megabytes_and_not_for_many(judge: Judge) -> None:
    some = "open('x', 'wb').write(b'x' * 6 * 2**20)\nprint(8)"
    assert (await judge.grade(some)).tests[0].verdict is AC
    many = "import os\nfor n in range(400):\n  with open(f'{n}', 'wb') as f: f.write(b'x' * 4 * 2**20)\nprint(8)"
    assert (await judge.grade(many)).tests[0].verdict is not AC
    await judge.is_as_before()


async def test_two_programs_at_once_have_folders_of_their_own(judge: Judge) -> None:
    leave, look = b"import os\nopen('mark', 'w').close()\nprint(os.listdir())", b"import os\nprint(os.listdir())"
    async with judge.sandbox.program(leave) as first, judge.sandbox.program(look) as second:
        assert (await first.run(Task(), LIMITS)).stdout == b"['mark']\n"
        assert (await second.run(Task(), LIMITS)).stdout == b"[]\n"


# ---------------------------------------------------------------- what stays forbidden

_NETWORK, _PROCESSES = "the sandbox has no network", "the sandbox allows no other processes"
FORBIDDEN = {
    "a socket": ("import socket\nsocket.socket()", _NETWORK),
    "a connection": ("import socket\nsocket.create_connection(('127.0.0.1', 80))", _NETWORK),
    "a local socket": ("import socket\nsocket.socket(socket.AF_UNIX)", _NETWORK),
    "a name": ("import socket\nsocket.gethostbyname('example.org')", _NETWORK),
    "a page": ("import urllib.request\nurllib.request.urlopen('http://example.org')", _NETWORK),
    "a server": ("import socketserver\nsocketserver.TCPServer(('', 0), None)", _NETWORK),
    "a fork": ("import os\nos.fork()", _PROCESSES),
    "a program": ("import subprocess\nsubprocess.run(['ls'])", _PROCESSES),
    "a shell": ("import os\nos.popen('ls').read()", _PROCESSES),
    "another image": ("import os\nos.execv('/bin/ls', ['ls'])", _PROCESSES),
    "a pool of processes": ("import multiprocessing\nmultiprocessing.Pool(2)", _PROCESSES),
    "a process": ("import multiprocessing\nmultiprocessing.Process(target=print).start()", _PROCESSES),
    "an executor of processes": (
        "from concurrent.futures import ProcessPoolExecutor as P\nwith P() as p: print(list(p.map(int, '35')))",
        _PROCESSES,
    ),
}


@pytest.mark.parametrize("name", FORBIDDEN)
async def test_what_is_forbidden_says_so(judge: Judge, name: str) -> None:
    program, reason = FORBIDDEN[name]
    execution = await judge.run(program)
    assert execution.outcome is Outcome.RUNTIME_ERROR
    assert reason in execution.stderr_tail.decode().splitlines()[-1]


async def test_a_pair_of_sockets_leads_nowhere_else(judge: Judge) -> None:
    program = """
import array, socket
left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
reached = []
def attempt(name, act):
    try: act()
    except OSError: return
    reached.append(name)
attempt("connect", lambda: left.connect("\\0prime-escape"))
attempt("bind", lambda: left.bind("\\0prime-escape"))
attempt("listen", lambda: left.listen())
attempt("sendto", lambda: left.sendto(b"x", "\\0prime-escape"))
attempt("sendmsg", lambda: left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]))
attempt("buffers", lambda: left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**26))
attempt("internet", lambda: socket.socketpair(socket.AF_INET))
left.send(b"8")
print(reached, right.recv(9))
"""
    assert (await judge.run(program)).stdout == b"[] b'8'\n"
