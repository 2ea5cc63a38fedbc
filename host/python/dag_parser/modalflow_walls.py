"""What keeps a DAG file's child from everything else: its user, its capabilities, its limits, a Landlock domain, its descriptors.

Plain system calls, in the order in which `modalflow_child` makes them. It knows nothing of DAG files.
"""

import ctypes
import fcntl
import os
import resource
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_DROP = 1, 4, 8, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
CAP_DAC_READ_SEARCH = 2
CLONE_NEWUSER = 0x10000000
FIRST_USER = 0x6D6F0000  # of those that children are when we are root; nobody has such numbers
PROCESSES = 128  # and threads of one child


def prctl(option, value):
    if LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def isolate(channel, out, err):
    """Descriptors 0 to 3 and no others; 3, ours to answer on, is not handed to what the file starts."""
    null = os.open("/dev/null", os.O_RDONLY)
    wanted = [os.dup(fd) for fd in (null, out, err, channel.fileno())]
    # The copies may lie on 0 to 3 themselves: lift them out of the way first.

    wanted = [fcntl.fcntl(fd, fcntl.F_DUPFD, 16) for fd in wanted]
    for target, fd in enumerate(wanted):
        os.dup2(fd, target, inheritable=target < 3)
    channel.detach()
    os.closerange(4, 4096)
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def has_other_users(user):
    """In a user namespace root may be the only user there is."""
    try:
        with open("/proc/self/uid_map") as file:
            ranges = [[int(number) for number in line.split()] for line in file]
    except OSError:
        return True
    return any(first <= user < first + count for first, _, count in ranges)


def drop_privileges(user):
    """Answers how many processes there may be. Each child is counted by itself, so that the bomb of one does not keep
    another from starting a thread: by a user of its own if we are root, else by a user namespace of its own."""
    if user is not None:
        for capability in range(64):
            if capability != CAP_DAC_READ_SEARCH and LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                break
        prctl(PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        # The DAG folder is root's. What may be read of all files is Landlock's to say.
        set_capabilities(1 << CAP_DAC_READ_SEARCH)
        LIBC.prctl(PR_CAP_AMBIENT, 2, CAP_DAC_READ_SEARCH, 0, 0)
        prctl(PR_SET_DUMPABLE, 0)
    elif LIBC.unshare(CLONE_NEWUSER) == 0:
        set_capabilities(0)
    else:
        # Of no use to whoever has none; the root of a namespace that maps nobody else has all.
        set_capabilities(0)
        return PROCESSES + processes_of_this_user()
    return PROCESSES


def set_capabilities(mask):
    version = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    if LIBC.capset(version, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def processes_of_this_user():
    """RLIMIT_NPROC counts all threads of a user, not only those of a child."""
    me, count = os.getuid(), 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/status") as file:
                    lines = dict(line.split(":", 1) for line in file if ":" in line)
                if int(lines["Uid"].split()[0]) == me:
                    count += int(lines["Threads"])
            except (OSError, KeyError, ValueError):
                pass
    return count


def limit(timeout, memory, processes):
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    seconds = (int(timeout) + 1) * (os.cpu_count() or 1) + 1
    limits = [
        (resource.RLIMIT_AS, mapped + memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_FSIZE, 64 << 20),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ]
    for name, value in limits:
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def landlock_scopes():
    """Whether this kernel can keep a child's signals inside (Landlock ABI 6)."""
    return LIBC.syscall(444, None, ctypes.c_size_t(0), 1) >= 6


def leave_the_domain(scratch):
    """A Landlock domain of its own: a child cannot signal or trace the warm process or another file's child, and it
    writes to its own scratch directory only."""
    if not landlock_scopes():
        return
    write, truncate = 1 << 1, 1 << 14
    writes = write | truncate | 0x3FF0  # remove, make, rename
    attributes = (ctypes.c_uint64 * 3)(writes, 0, 3)  # nothing of the net; abstract sockets, signals
    ruleset = LIBC.syscall(444, ctypes.byref(attributes), ctypes.c_size_t(24), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for path, access in ((scratch, writes), ("/dev/null", write | truncate)):
        place = os.open(path, os.O_PATH)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, place))
        if LIBC.syscall(445, ruleset, 1, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), "landlock_add_rule")
        os.close(place)
    if LIBC.syscall(446, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)
