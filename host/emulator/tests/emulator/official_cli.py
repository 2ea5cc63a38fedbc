"""A session of the official command line, in one process: what each command prints, with what changes taken out."""

import difflib
import hashlib
import os
import re
import sys
import tempfile
import traceback

os.environ["COLUMNS"] = "200"
import modal.cli.entry_point
from modal.__main__ import main

VOLATILE = [
    (r"\b(ac|ak|ap|di|qu|vo|st|en|ta|fc|im)-[A-Za-z0-9]{22}\b", r"\1-ID"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?( UTC|\+00:00)?", "TIME"),
    (r"http://127.0.0.1:\d+", "URL"),
]

#: Where lines go.
say = print


def forked(action):
    """What an action prints, in a process of its own that need not import everything again."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            action()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            if isinstance(end.code, str):
                print(end.code)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code or 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    return text, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def cli(line, *more):
    def action():
        sys.argv = ["modal", *line.split(), *more]
        main()

    text, code = forked(action)
    for pattern, word in VOLATILE:
        text = re.sub(pattern, word, text)
    # Tables and frames become their cells.
    text = re.sub(r"[━┏┓┗┛┡┩┃│└┘├┤┬┴┼─┳╇┻╭╮╰╯]+", "|", text)
    lines = [re.sub(r"\s*\|[\s|]*", " | ", re.sub(r"  +", " ", line)).strip() for line in text.splitlines()]
    say(f"$ modal {line}" + "".join(f" {os.path.basename(word)}" for word in more))
    for line in lines:
        if line.strip("| "):
            say("  " + line.replace(FOLDER, "FOLDER").strip("| "))
    if code:
        say(f"  -> {code}")


def sdk(action):
    text, code = forked(action)
    print(text, end="")
    assert code == 0, code


FOLDER = tempfile.mkdtemp()
big = os.path.join(FOLDER, "big.bin")
# Two blocks and a half, the second of zeros alone.
with open(big, "wb") as file:
    file.write(os.urandom(8 << 20) + bytes(8 << 20) + os.urandom(4 << 20) + bytes(100))
note = os.path.join(FOLDER, "note.txt")
with open(note, "w") as file:
    file.write("hello\n")


def same(path):
    digest = lambda path: hashlib.sha256(open(path, "rb").read()).hexdigest()
    say(f"  same as what went up: {digest(path) == digest(big)}")


cli("token info")
cli("dict create things")
cli("dict create bad/name")
cli("dict list --json")


def fill():
    things = modal.Dict.from_name("things")
    things["a"] = {"b": [1, 2.5, None, "ü"]}
    things.put(("c", 1), 4)
    print("put if absent:", things.put("a", 2, skip_if_exists=True), things.put("d", 3, skip_if_exists=True))


def look():
    things = modal.Dict.from_name("things")
    print("pop:", things.pop("d"), "len:", things.len(), "in:", "a" in things, "zz" in things)


sdk(fill)
cli("dict get things a")
cli("dict items things 1")
sdk(look)
cli("dict clear things --yes")
cli("dict items things")
cli("dict delete things --yes")
cli("dict get things a")

cli("queue create line")


def put():
    line = modal.Queue.from_name("line")
    line.put_many(list(range(5)))
    line.put("other", partition="p")


def take():
    line = modal.Queue.from_name("line")
    print("get:", line.get(), line.get_many(10), line.get(block=False), line.get(partition="p"))


sdk(put)
cli("queue len line")
cli("queue len line --total")
cli("queue peek line 2")
sdk(take)
cli("queue list --json")
cli("queue delete line --yes")

cli("secret create token KEY=value OTHER=x")
cli("secret create token KEY=value")
cli("secret create token KEY=new --force")
cli("secret list --json")
cli("secret delete token --yes")


def files_on_a_volume(version):
    cli(f"volume create files{version} --version {version}")
    cli(f"volume put files{version}", big, "/sub/big.bin")
    cli(f"volume put files{version}", note, "note.txt")
    cli(f"volume put files{version}", note, "note.txt")
    cli(f"volume ls files{version} --json")
    cli(f"volume ls files{version} sub --json")
    back = os.path.join(FOLDER, f"back{version}.bin")
    cli(f"volume get files{version} sub/big.bin", back)
    same(back)
    cli(f"volume cp files{version} note.txt sub/copy.txt")
    cli(f"volume get files{version} sub/copy.txt -")
    cli(f"volume rm files{version} sub/big.bin")
    cli(f"volume rm files{version} nothing.txt")
    cli(f"volume rename files{version} archive{version} --yes")


# Version 2 is told where it differs from version 1.
told = []
for version in ("1", "2"):
    say = (page := []).append
    files_on_a_volume(version)
    told.append([re.sub(rf"\b(files|archive|back|version ){version}\b", r"\1N", line) for line in page])
say = print
print("\n".join(told[0]))
print("version 2 differs in:", [line for line in difflib.ndiff(*told) if line[0] in "+-"])
cli("volume list --json")
cli("volume delete archive1 --yes")
cli("volume ls archive1")
sdk(lambda: print("read:", b"".join(modal.Volume.from_name("archive2").read_file("sub/copy.txt"))))

cli("environment create staging")
cli("environment create en-bad")
cli("dict create things --env staging")
cli("dict list --json --env staging")
cli("dict list --json")
cli("dict list --json --env nowhere")
cli("environment list --json")
cli("environment delete staging --yes")
cli("app list --json")
cli("app stop nothing --yes")
