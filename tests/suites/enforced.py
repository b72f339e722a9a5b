#!/usr/bin/env python3
"""Runs one real image under a seccomp profile and a set of capabilities: enforced.py NAME PROFILE.json [CAPABILITY...]

The accuracy harness ($TRUTH_HARNESS) sets the container up, waits until it is ready and drives it, as for the recorded runs; here
crun also loads the profile, and the processes hold these capabilities (without any argument: Docker's default ones). Prints one
JSON object: `error` is null where the workload passes under the same users as recorded; else `missing` names system calls that a
run without the filter made and the profile does not allow.
"""
import json, os, pathlib, re, sys, tempfile

HARNESS = pathlib.Path(os.environ["TRUTH_HARNESS"])
sys.path.insert(0, str(HARNESS))
import run as harness  # noqa: E402
from common import DOCKER_CAPS, corpus  # noqa: E402


def attempt(image, caps, users, profile=None, strace=None):
    """None when the workload passes, else why not."""
    plain = harness.spec

    def enforced(*args, **named):
        config = plain(*args, **named)
        if profile: config["linux"]["seccomp"] = profile
        return config

    harness.spec = enforced
    try: container = harness.Container(image, caps, record=False, tag="enforced", strace=strace)
    finally: harness.spec = plain
    try:
        container.start()
        status = pathlib.Path(f"/proc/{container.pid}/status").read_text()
        if profile and not re.search(r"^Seccomp:\s+2$", status, re.M): return "the filter is not in force"
        if not container.wait_ready(): return "not ready: " + container.log.decode(errors="replace").strip()[-300:]
        error = container.work()
        if error: return error
        return None if harness.settled(container, users) == users else f"runs as users {harness.identities(container)}, not {users}"
    except RuntimeError as why: return str(why)[-300:]
    finally:
        if hasattr(container, "proc"): container.stop()
        container.close()


def called(image, caps, users):
    """The system calls of a run without the filter, of each process from its first execve in the container."""
    with tempfile.NamedTemporaryFile("r") as out:
        attempt(image, caps, users, strace=out.name)
        runtime, inside, names = False, set(), set()
        for line in out:
            match = re.match(r"(\d+) +(?:<\.\.\. )?(\w+)", line)
            if not match: continue
            pid, name = match[1], match[2]
            # strace follows the harness's own way to crun; what is executed after that is in the container.
            if name == "execve" and re.search(r'execve\("[^"]*crun"', line): runtime = True
            elif name == "execve" and runtime: inside.add(pid)
            if pid not in inside: continue
            names.add(name)
            child = re.search(r"(?:clone3?|v?fork)\b.* = (\d+)", line)
            if child: inside.add(child[1])
        return names


def main(name, path, *caps):
    image = corpus()[name]
    image = image | dict(ready_seconds=min(image.get("ready_seconds", 40), 30))
    recorded = json.loads((HARNESS / "results" / image["list"] / f"{name}.json").read_text())
    profile = json.loads(pathlib.Path(path).read_text())
    held = [] if list(caps) == ["none"] else list(caps) or DOCKER_CAPS
    error = attempt(image, held, recorded["users"], profile)
    answer = dict(image=name, error=error)
    if error:
        allowed = {n for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for n in rule["names"]}
        answer["missing"] = sorted(called(image, held, recorded["users"]) - allowed - {"clone3"})
        answer["without_filter"] = attempt(image, held, recorded["users"])
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
