"""Tells the prelude that this Python will do, and what a shell does not pass on as it was given.

It prints `htlease IGNORED ENTRIES...`: the signals that the shell ignores, a hexadecimal mask, and
the environment that the shell was given, or `?` for what cannot be known. The words of ENTRIES are
one text, cut to what fits into an argument: for each entry of the environment a comma, and then
its name if the shell passes it on unchanged, else `=` and all of it in hexadecimal.

Text of a `python3 -c`: no single quotes, and any Python 3 can read it.
"""

import posix
import sys

if sys.version_info < (3, 9):  # noqa: UP036
    sys.exit(1)
installed = set(sys.builtin_module_names)
for folder in sys.path:
    try:
        installed.update(name.split(".")[0] for name in posix.listdir(folder))
    except OSError:
        pass  # a zip file that could be there
if not installed.issuperset("@NEEDED_MODULES@".split()):  # noqa: SIM905
    sys.exit(1)  # only a part of the standard library is installed

#: A shell gives them other values from one command to the next.
VOLATILE = b"_ SHLVL RANDOM SRANDOM SECONDS EPOCHSECONDS EPOCHREALTIME LINENO HISTCMD".split()
WORD = 99999


def read(name):  # type: ignore[no-untyped-def]
    with open("/proc/%d/%s" % (posix.getppid(), name), "rb", 0) as file:  # noqa: PTH123, UP031
        return file.readall()


ignored = "?"
words = ["?"]
try:
    if posix.readlink("/proc/self") == str(posix.getpid()):  # and not of another namespace
        ignored = read("status").split(b"SigIgn:")[1].split()[0].decode()  # type: ignore[no-untyped-call]
        text = ""
        for entry in read("environ").split(b"\0")[:-1]:  # type: ignore[no-untyped-call]
            name, _, value = entry.partition(b"=")
            plain = name.decode("latin-1")
            if (
                plain.isidentifier()
                and max(name) < 128
                and posix.environ.get(name) == value
                and not name.startswith((b"BASH", b"htlease_"))
                and name not in VOLATILE
            ):
                text += "," + plain
            else:
                text += ",=" + entry.hex()
        words = [text[at : at + WORD] for at in range(0, len(text), WORD)]
except (OSError, IndexError):
    pass
print("htlease", ignored, *words, flush=True)
posix._exit(0)  # sooner than by taking the interpreter apart
