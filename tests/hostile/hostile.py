"""Hostile inputs to every command, each in a process of its own: `make test-hostile`.

`hostile.py WORD` tries some, SHARE=2 every second one; PATIENCE=3 is for a busy machine.

Demanded of each: it ends within 10 seconds and in less than 1 GB, with the exit code that is right for it and, if that
is not 0, one line that says why; no traceback, no control characters, nothing of what was there before is changed.
The processes are forked from one that has imported everything. For POSIX systems.
"""

import contextlib
import hashlib
import importlib
import os
import pkgutil
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg", "COLUMNS": "200"}
SECONDS, BYTES = 10.0 * float(os.environ.get("PATIENCE", "1")), 10**9
RESERVED = 6 * 10**9  # address space, so that a bomb does not take the machine with it


def import_everything():
    import diffspace

    for module in pkgutil.walk_packages(diffspace.__path__, "diffspace."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    from PIL import Image

    Image.init()


def fork(work):
    """Run `work` in a new process, which ends with its exit code, 70 for an error that nobody caught."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 70)


def run(arguments, place, limit=None):
    """(exit code, None if it had to be killed; what it printed; seconds; bytes) of a command, run in a folder."""
    reader, writer = os.pipe()

    def work():
        os.close(reader)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(place)
        resource.setrlimit(resource.RLIMIT_AS, (RESERVED, RESERVED))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        from diffspace.cli.app import main

        return main([str(word) for word in arguments])

    begun = time.monotonic()
    child = fork(work)
    os.close(writer)
    printed, killed = b"", False
    while True:
        left = begun + SECONDS - time.monotonic()
        ready = left > 0 and select.select([reader], [], [], left)[0]
        if not ready:
            killed = True
            os.kill(child, signal.SIGKILL)
            break
        piece = os.read(reader, 65536)
        if not piece:
            break
        printed += piece
    os.close(reader)
    _, status, used = os.wait4(child, 0)
    code = None if killed else os.waitstatus_to_exitcode(status)
    return code, printed.decode(errors="replace"), time.monotonic() - begun, used.ru_maxrss * 1024


def content(*folders):
    """A hash of each file, and where each link leads; pipes and devices are left alone."""
    found = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_symlink():
                found[path] = os.readlink(path)
            elif path.is_file():
                found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def faults(case, code, printed, seconds, used, before, after):
    """What is wrong with the outcome of a case."""
    lines = [line for line in printed.splitlines() if line.startswith("diffspace: ")]
    if code is None:
        yield f"no end within {SECONDS:g} s"
    elif code not in case.codes:
        yield f"exit code {code}, expected {' or '.join(map(str, case.codes))}"
    if "Traceback" in printed:
        yield "a traceback"
    if code in (1, 2) and not (len(lines) == 1 or (len(lines) > 1 and case.words[:2] == ("data", "verify"))):
        yield f"{len(lines)} lines of error"
    if any(len(line) < 20 or len(line) > 3000 for line in lines):
        yield "a line of error that is too short or too long"
    if code and case.limit is not None and not any(str(name) in line for name in case.names for line in lines):
        yield f"a line of error without {' or '.join(map(str, case.names))}"
    if any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in printed):
        yield "control characters"
    if used > BYTES:
        yield f"{used / 1e6:.0f} MB"
    for path, was in before.items():
        if after.get(path) != was and not any(path.match(pattern) for pattern in case.changes):
            yield f"{path.name} is {'changed' if path in after else 'lost'}"
    hidden = [path.name for path in after.keys() - before.keys() if path.name.startswith(".")]
    if hidden and code is not None:
        yield f"{hidden[0]} is left behind"


def check(case, base, shown):
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        place = Path(name) / "work"
        place.mkdir()
        try:
            case.prepare(place, base)
            before = content(place)
            words = [word.replace("BASE", str(base)) for word in case.words]
            code, printed, seconds, used = run(words, place, case.limit)
            wrong = list(faults(case, code, printed, seconds, used, before, content(place)))
        finally:
            for folder in (place, *place.rglob("*")):
                if folder.is_dir() and not folder.is_symlink():
                    folder.chmod(0o755)
    label = " ".join(word if len(word) < 60 else word[:57] + "..." for word in case.words)
    label += f"  [{case.what}]" if case.what else ""
    last = next((line for line in reversed(printed.splitlines()) if line.strip()), "")
    if shown or wrong:
        text = ascii(last)[1:-1]
        print(f"{'; '.join(wrong) or 'ok'}: {label}")
        print(f"    {code} {seconds:.1f} s {used / 1e6:.0f} MB: {text[:400]}", flush=True)
    if wrong and "Traceback" in printed:
        print("    " + "\n    ".join(ascii(line)[1:-1] for line in printed.splitlines()[-8:]), flush=True)
    return not wrong


def main():
    begun = time.monotonic()
    import_everything()
    sys.path.insert(0, str(Path(__file__).parent))
    import cases

    wanted = sys.argv[1:]
    chosen = [case for case in cases.CASES if all(word in f"{' '.join(case.words)} {case.what}" for word in wanted)]
    chosen = chosen[:: int(os.environ.get("SHARE", "1"))]
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        base = Path(name)
        _, status = os.waitpid(fork(lambda: cases.make_base(base)), 0)
        if status:
            raise SystemExit("the models to try things on could not be made")
        old = content(base)
        workers = min(len(chosen), int(os.environ.get("JOBS", "2")))

        def work(worker):
            return sum(not check(case, base, bool(wanted)) for case in chosen[worker::workers]) > 0

        children = [fork(lambda worker=worker: work(worker)) for worker in range(workers)]
        failed = [child for child in children if os.waitpid(child, 0)[1]]
        if content(base) != old:
            print("files that no command was to touch have changed")
            failed.append(base)
        shutil.rmtree(base / "none", ignore_errors=True)
    outcome = "there are faults" if failed else "no fault"
    print(f"{len(chosen)} hostile inputs in {time.monotonic() - begun:.0f} s: {outcome}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
