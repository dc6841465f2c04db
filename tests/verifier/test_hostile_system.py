"""Programs that reach for other processes, files, the network and the kernel."""

import os
import socket
from pathlib import Path

import pytest

from tests.verifier.judge import HONEST, QUICK, RE, SE, WA, Case, Judge, names

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Each prints the right answer if anything of what it tries succeeds.
_ANY = """
import os
def attempt(*calls):
    for call in calls:
        try: result = call()
        except (OSError, ValueError, OverflowError): continue
        if result != -1: print(8, flush=True); os._exit(0)
"""

PROCESSES = [
    Case(row=22, tries="forks", program="import os\nos.fork()\nprint(8)", verdict=RE),
    Case(row=22, tries="forks without end", program="import os\nwhile True: os.fork()", verdict=RE),
    Case(
        row=22,
        tries="forks through the C library",
        program="import ctypes\nc = ctypes.CDLL(None)\n"
        "if c.fork() >= 0 or c.vfork() >= 0 or c.daemon(0, 0) == 0: print(8)",
        verdict=WA,
    ),
    Case(
        row=22,
        tries="leaves a daemon",
        program="import subprocess\nsubprocess.Popen(['/bin/sleep', '60'], start_new_session=True)\nprint(8)",
        verdict=RE,
    ),
    Case(row=22, tries="starts a session", program="import os\nos.setsid()\nprint(8)", verdict=RE),
    Case(row=22, tries="uses multiprocessing", program="import multiprocessing\nmultiprocessing.Pool(2)", verdict=RE),
    Case(row=25, tries="kills its parent", program="import os\nos.kill(os.getppid(), 9)\nprint(8)", verdict=RE),
    Case(row=25, tries="kills its group", program="import os\nos.kill(0, 9)\nprint(8)", verdict=RE),
    Case(row=25, tries="kills its group by name", program="import os\nos.killpg(0, 9)\nprint(8)", verdict=RE),
    Case(row=25, tries="kills everybody", program="import os\nos.kill(-1, 9)\nprint(8)", verdict=RE),
    Case(row=25, tries="kills itself", program="import os\nos.kill(os.getpid(), 9)\nprint(8)", verdict=RE),
    Case(
        row=25,
        tries="kills whom it finds",
        program=_ANY + "import os\nattempt(*[lambda p=p: os.kill(p, 9) for p in range(1, 5000) if p != os.getpid()])",
        verdict=WA,
    ),
    Case(row=25, tries="kills itself by a timer", program="import signal\nsignal.alarm(1)\nsignal.pause()", verdict=RE),
    Case(
        row=37, tries="runs a program", program="import subprocess\nsubprocess.run(['/bin/true'])\nprint(8)", verdict=RE
    ),
    Case(
        row=37,
        tries="uses the shell",
        program="import os, posix\nif os.system('true') == 0 or posix.system('true') == 0: print(8)",
        verdict=WA,
    ),
    Case(row=37, tries="replaces itself", program="import os\nos.execv('/bin/echo', ['echo', '8'])", verdict=RE),
    Case(
        row=37,
        tries="replaces itself through the C library",
        program="import ctypes\nargv = (ctypes.c_char_p * 3)(b'echo', b'8', None)\n"
        "ctypes.CDLL(None).execve(b'/bin/echo', argv, None)",
        verdict=WA,
    ),
    Case(
        row=37,
        tries="replaces itself by what it holds open",
        program="import os\nd = os.open(os.__file__, os.O_RDONLY)\nos.dup2(d, 9)\nos.execve(9, ['x'], {})",
        verdict=RE,
    ),
]

FILES = [
    Case(
        row=33,
        tries="writes wherever it can",
        program=_ANY + "places = ['/', '/usr', '/etc', '/dev/shm', '/home', '/var/tmp', '/run', '~', '..']\n"
        "places.append(os.path.dirname(os.__file__))\n"
        "attempt(*[lambda p=p: open(os.path.expanduser(p) + '/prime-escape', 'w') for p in places])\n"
        "attempt(*[lambda p=p: os.mkdir(os.path.expanduser(p) + '/prime-escape') for p in places])\n"
        "attempt(lambda: os.open('/var/tmp', os.O_TMPFILE | os.O_RDWR))",
        verdict=WA,
    ),
    Case(
        row=33,
        tries="changes what is there",
        program=_ANY + "open('x', 'w').close()\n"
        "attempt(lambda: os.unlink(os.__file__), lambda: os.rmdir(os.path.dirname(os.__file__)))\n"
        "attempt(lambda: os.chmod('/var/tmp', 0o777), lambda: os.rename(os.__file__, 'y'))\n"
        "attempt(lambda: os.rename('x', '/var/tmp/prime-escape'), lambda: os.rename('x', os.__file__))\n"
        "attempt(lambda: os.utime(os.__file__), lambda: open(os.__file__, 'r+'), lambda: os.truncate(os.__file__, 0))",
        verdict=WA,
    ),
    Case(
        row=33,
        tries="makes more than files in its folder",
        program=_ANY + "open('x', 'w').close()\n"
        "attempt(lambda: os.mkfifo('f'), lambda: os.mknod('n'), lambda: os.mknod('d', 0o20666, 259))\n"
        "attempt(lambda: os.symlink('/etc', 's'), lambda: os.link('x', 'h'), lambda: os.chmod('x', 0o4777))\n"
        "attempt(lambda: os.chown('x', 0, 0), lambda: os.setxattr('x', 'user.a', b'b'))",
        verdict=WA,
    ),
    Case(
        row=34,
        tries="links to the machine's files",
        program=_ANY + "attempt(lambda: os.symlink('/etc/passwd', 'prime-escape'))\n"
        "attempt(lambda: os.link('/etc/passwd', 'prime-escape'), lambda: os.link(os.__file__, 'prime-escape'))",
        verdict=WA,
    ),
    Case(
        row=34,
        tries="reads the machine's files",
        program=_ANY
        + "import os\npaths = ['/etc/passwd', '/../../etc/passwd', os.__file__ + '/../../../../../../etc/shadow',\n"
        " '/proc/self/root/etc/passwd', '/proc/1/environ', '/proc/self/environ', '/proc/self/cmdline', '/proc/1/mem',\n"
        " '/proc/self/mem', '/proc/self/maps', '/proc/kallsyms', '/proc/cpuinfo', '/proc/meminfo', '/sys/kernel/mm',\n"
        " f'/proc/{os.getppid()}/mem', '/dev/kmsg', '/dev/mem', '/dev/zero', '/var/log', '/root']\n"
        "attempt(*[lambda p=p: open(p, 'rb') for p in paths], *[lambda p=p: os.listdir(p) for p in paths])",
        verdict=WA,
    ),
    Case(row=35, tries="lists the root folder", program="import os\nos.listdir('/')\nprint(8)", verdict=RE),
    Case(row=35, tries="lists the folder above", program="import os\nos.listdir('..')\nprint(8)", verdict=RE),
    Case(
        row=35,
        tries="looks into a private home",
        program="import os\nos.stat('/root/.bashrc')\nprint(8)",
        verdict=RE,
    ),
    Case(
        row=35,
        tries="finds a secret in its environment",
        program="import os\nif any('TOKEN' in n or 'KEY' in n or 'SECRET' in n for n in os.environ): print(8)",
        verdict=WA,
    ),
    Case(
        row=36,
        tries="opens sockets of all kinds",
        program=_ANY + "import socket\nfamilies, kinds = (1, 2, 10, 16, 17, 31, 38, 40, 44), (1, 2, 3, 5)\n"
        "attempt(*[lambda f=f, k=k: socket.socket(f, k) for f in families for k in kinds])\n"
        "attempt(lambda: socket.socketpair(2), lambda: socket.create_connection(('169.254.169.254', 80), 1))\n"
        "attempt(lambda: socket.getaddrinfo('example.org', 80), lambda: socket.gethostbyname('localhost.localdomain'))",
        verdict=WA,
    ),
    Case(
        row=40,
        tries="raises its limits",
        program="import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))\nprint(8)",
        verdict=RE,
    ),
    Case(
        row=40,
        tries="lowers its processor time",
        program="import resource\nresource.setrlimit(resource.RLIMIT_CPU, (0, 0))\nprint(8)",
        verdict=RE,
    ),
    Case(
        row=40,
        tries="changes the limits of its parent",
        program="import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_STACK, (1, 1))\nprint(8)",
        verdict=RE,
    ),
    Case(row=40, tries="becomes root", program="import os\nos.setuid(0)\nprint(8)", verdict=RE),
    Case(row=45, tries="changes its root", program="import os\nos.chroot('/tmp')\nprint(8)", verdict=RE),
    Case(row=45, tries="makes a device", program="import os\nos.mknod('/tmp/prime-escape', 0o20666, 259)", verdict=RE),
    Case(row=45, tries="renames the machine", program="import socket\nsocket.sethostname('x')\nprint(8)", verdict=RE),
    Case(row=45, tries="sets the clock", program="import time\ntime.clock_settime(0, 0)\nprint(8)", verdict=RE),
]


@pytest.mark.parametrize("case", PROCESSES, ids=names(PROCESSES))
async def test_a_program_reaches_no_other_process(judge: Judge, case: Case) -> None:
    await judge.expect(case)


@pytest.mark.parametrize("case", FILES, ids=names(FILES))
async def test_a_program_reaches_no_file_no_network_and_no_limit(judge: Judge, case: Case) -> None:
    await judge.expect(case)


# Each is called with arguments that would bring another error, or success.
_CALLS = """
ptrace:101 process_vm_readv:310 process_vm_writev:311 kcmp:312 pidfd_open:434 pidfd_getfd:438 pidfd_send_signal:424
tkill:200 rt_sigqueueinfo:129 rt_tgsigqueueinfo:297 setpgid:109 setsid:112 setpriority:141 ioprio_set:251
sched_setscheduler:144 sched_setaffinity:203 sched_setattr:314 setrlimit:160 capset:126 setuid:105 setgroups:116
mount:165 umount2:166 pivot_root:155 unshare:272 setns:308 chroot:161 open_tree:428 move_mount:429
fsopen:430 fsmount:432 mount_setattr:442 listmount:458 statmount:457 name_to_handle_at:303 open_by_handle_at:304
openat2:437 fanotify_init:300 inotify_init1:294 mknod:133 symlink:88 link:86 chmod:90
chown:92 flock:73 setxattr:188 getxattr:191 utimensat:280
add_key:248 request_key:249 keyctl:250 bpf:321 io_uring_setup:425 io_uring_enter:426 userfaultfd:323
perf_event_open:298 memfd_create:319 memfd_secret:447 shmget:29 semget:64 msgget:68 mq_open:240
 signalfd4:289 timerfd_create:283 timer_create:222 io_setup:206 splice:275 vmsplice:278 tee:276
sendfile:40 copy_file_range:326 socket:41 socketpair:53 connect:42 bind:49 sendmsg:46 recvmsg:47
personality:135 modify_ldt:154 ioperm:173 iopl:172 seccomp:317 landlock_create_ruleset:444 landlock_restrict_self:446
execve:59 execveat:322 fork:57 vfork:58 clone3:435 acct:163 swapon:167 reboot:169 init_module:175 finit_module:313
kexec_load:246 syslog:103 quotactl:179 sethostname:170 setdomainname:171 settimeofday:164 clock_settime:227
adjtimex:159 vhangup:153 uselib:134 process_madvise:440 process_mrelease:448 set_mempolicy:238 migrate_pages:256
move_pages:279 mlock:149 mlockall:151 mbind:237 remap_file_pages:216 lookup_dcookie:212 futex_waitv:449 mseal:462
cachestat:451 map_shadow_stack:453 lsm_set_self_attr:460 pkey_alloc:330
"""
_CALLER = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
allowed = []
for entry in {_CALLS!r}.split():
    name, _, number = entry.partition(":")
    result = libc.syscall(ctypes.c_long(int(number)), *[ctypes.c_long(0)] * 6)
    if result != -1 or ctypes.get_errno() not in (1, 38): allowed.append(name)
print(allowed)
"""
_OPTIONS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def refused(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(each) for each in arguments])
    return result == -1 and ctypes.get_errno() in (1, 25)
print([option for option in (1, 4, 8, 22, 24, 26, 28, 31, 35, 36, 38, 40, 41, 47, 53, 54, 59, 62)
       if not refused(157, option, 1, 0, 0, 0)])
print([command for command in (5, 6, 7, 8, 10, 15, 36, 37, 38, 1024, 1026, 1031, 1033, 1036, 1040)
       if not refused(72, 0, command, 0)])
print([request
       for request in (0x5412, 0x540E, 0x5410, 0x8901, 0x8902, 0x5452, 0x890B) if not refused(16, 0, request, 0)])
# Neither a process nor a namespace, not even with the flags of a thread.
print([flags
       for flags in (17, 0x100, 0x10000000, 0x20000, 0x10000000 | 0x10d00, 0x20000 | 0x10900, 0x02000000 | 0x10d00)
       if not refused(56, flags, 0, 0, 0, 0)])
"""


async def test_the_kernel_refuses_what_no_program_needs(judge: Judge) -> None:
    execution = await judge.run(_CALLER)
    assert execution.stdout == b"[]\n", execution
    await judge.is_as_before()


async def test_the_kernel_refuses_the_options_of_calls_that_programs_do_need(judge: Judge) -> None:
    execution = await judge.run(_OPTIONS)
    assert execution.stdout == b"[]\n" * 4, execution
    await judge.is_as_before()


# `mov eax, 20; int 0x80; ret`, which is getpid of the 32-bit kernel.
_FOREIGN = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex("b814000000cd80c3"))
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print(8)
"""
FOREIGN = [
    Case(
        row=39, tries="x32", program="import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 39)\nprint(8)", verdict=SE
    ),
    Case(row=39, tries="the 32-bit kernel", program=_FOREIGN, verdict=(SE, RE)),
]


@pytest.mark.parametrize("case", FOREIGN, ids=names(FOREIGN))
async def test_calls_of_another_architecture_end_the_program(judge: Judge, case: Case) -> None:
    await judge.expect(case)


async def test_a_program_learns_nothing_about_where_it_runs(judge_a: Judge) -> None:
    look = """
import gc, os, sys, socket
seen = [sys.argv, sys.orig_argv, sys.path, list(sys.path_importer_cache), dict(os.environ), os.getcwd(), os.uname()[1]]
frame = sys._getframe()
while frame: seen += [frame.f_globals.keys(), frame.f_code.co_filename]; frame = frame.f_back
seen += [o for o in gc.get_objects() if isinstance(o, dict) and "identity" in o]
print(seen, *[os.path.exists(path) for path in ("/etc/passwd", "/proc/self", "/home", "/work")])
"""
    execution = await judge_a.run(look)
    text = execution.stdout.decode()
    assert text.endswith("False False False False\n")
    for secret in (socket.gethostname(), str(os.getpid()), "PRIME_TOKEN", "'identity'"):
        assert secret not in text


async def test_a_traceback_names_the_program_and_nothing_of_ours(judge: Judge) -> None:
    execution = await judge.run("def f(): return 1 / 0\nf()")
    said = execution.stderr_tail.decode()
    assert "solution.py" in said
    assert "verifier" not in said


async def test_a_program_that_signals_itself_gets_the_signal_and_no_kill(judge: Judge) -> None:
    found = await judge.grade(
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", {**QUICK, "inputs": [""], "outputs": ["8"]}
    )
    assert (found.reason, found.tests[0].signal) == ("runtime_error:0", 15)
    assert (await judge.grade(HONEST)).score == 1.0


async def test_a_program_has_no_capability(judge: Judge) -> None:
    program = """
import ctypes, struct
header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
data = ctypes.create_string_buffer(24)
assert ctypes.CDLL(None).syscall(ctypes.c_long(125), header, data) == 0
print(struct.unpack("=6I", data.raw[:24]))
"""
    assert (await judge.run(program)).stdout == b"(0, 0, 0, 0, 0, 0)\n"


async def test_a_program_sees_nothing_in_a_private_folder(judge: Judge, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "inside").write_text("x")
    (private / "link").symlink_to("inside")
    private.chmod(0)
    looks = f"""
import os
found = []
for look in (os.stat, os.lstat, os.readlink, os.listdir, open, os.statvfs):
    for name in ("inside", "link"):
        try: look({str(private)!r} + "/" + name)
        except OSError: continue
        found.append(look.__name__)
print(found)
"""
    execution = await judge.run(looks)
    private.chmod(0o700)
    assert execution.stdout == b"[]\n"


async def test_the_way_to_the_library_leads_no_further(judge: Judge) -> None:
    """In tier B an interpreter in a private home is reached through a descriptor."""
    look = """
import glob, os
found, place = [], os.path.dirname(os.__file__)
for _ in range(12):
    place += "/.."
    for act in (lambda p: open(p + "/etc/passwd"), lambda p: os.stat(p + "/root/.bashrc"),
                lambda p: os.stat(p + "/.bashrc"), lambda p: open(p + "/.profile")):
        try: act(place)
        except OSError: continue
        found.append(place)
for number in range(3, 1024):
    for act in (os.listdir, lambda n: os.open("../../../../etc/passwd", os.O_RDONLY, dir_fd=n)):
        try: listed = act(number)
        except OSError: continue
        if "os.py" not in listed and not any(name.startswith("python3") for name in listed): found.append(listed)
print(found)
"""
    execution = await judge.run(look)
    assert execution.stdout == b"[]\n", execution
