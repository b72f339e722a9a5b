#!/usr/bin/env python3
"""Benign deeds and attacks in one running container: deeds.py RECORDER OUT [NAME...]

RECORDER is the folder of the recorder (record.py, run.py, attack.py, attacks.toml, corpora); $TRUTH_WORK is as for it. Every image is
started once; the deeds of deeds.toml and the recorder's attacks are run in it in an order drawn by the image's name. The container has,
beside `lo`, a link to a network of its own, in which one process plays all peers; attacks call 203.0.113.66 there, not 127.0.0.1.
OUT/NAME.ndjson is as the recorder's attack streams are, with `truth.deed` where an event fell into the time of a benign deed.
"""
import json, os, pathlib, random, re, shutil, subprocess, sys, time, tomllib

RECORDER, OUT = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(RECORDER))
import attack, falco  # noqa: E402
from common import WORK, corpus  # noqa: E402
from run import PYTHON, Container, ids  # noqa: E402

PEERS = ["10.20.0.1/24", "10.20.0.5/32", "203.0.113.66/32", "198.51.100.20/32"]
SINK = """
import socket, threading, time
def one(port):
    l = socket.create_server(("0.0.0.0", port))
    while True:
        c, _ = l.accept(); c.settimeout(2)
        try:
            if port == 8000: c.recv(2048); c.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n#!/bin/sh\\necho dropped $$\\n")
            elif port == 4444: c.sendall(b"id\\necho reverse-shell\\nexit\\n"); time.sleep(0.5)
            else: c.recv(2048); c.sendall(b'{"id":1,"result":true}\\n')
        except OSError: pass
        c.close()
for p in (8000, 4444, 3333, 6443): threading.Thread(target=one, args=(p,), daemon=True).start()
time.sleep(900)
"""


def sh(*command):
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def far_end(c):
    """The other end of the container's link: a network namespace with all peers."""
    far = subprocess.Popen(["unshare", "-n", PYTHON, "-c", SINK], stderr=subprocess.DEVNULL)
    time.sleep(0.3)
    near = ["nsenter", "-t", c.pid, "-n"]
    there = ["nsenter", "-t", far.pid, "-n"]
    sh(*near, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0", "netns", far.pid)
    sh(*near, "ip", "addr", "add", "10.20.0.9/24", "dev", "eth0")
    sh(*near, "ip", "link", "set", "eth0", "up")
    for peer in PEERS: sh(*there, "ip", "addr", "add", peer, "dev", "far0")
    sh(*there, "ip", "link", "set", "lo", "up")
    sh(*there, "ip", "link", "set", "far0", "up")
    sh(*near, "ip", "route", "add", "default", "via", "10.20.0.1")
    return far


def execute(c, argv):
    uid, gid, _, _ = ids(c.ov.root, c.conf.get("User"))
    return c.crun("exec", "--user", f"{uid}:{gid}", c.id, *argv)


def fits(c, deed):
    uid = ids(c.ov.root, c.conf.get("User"))[0]
    return (("on" not in deed or c.name in deed["on"]) and all(attack.has(c, p) for p in deed.get("needs", []))
            and (not deed.get("root") or uid == 0) and ("sh" not in deed or attack.has(c, "sh")))


def port(img):
    m = re.match(r"(\d+)", (img.get("expose") or ["80"])[0])
    return m[1]


def run_deed(c, deed):
    text = lambda t: t.replace("PORT", port(c.img))
    if deed.get("login"):
        command = ["nsenter", "-t", str(c.pid), "-n", "sshpass", "-p", "app", "ssh", "-q", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "app@127.0.0.1", deed["sh"]]
    else:
        command = execute(c, ["sh", "-c", text(deed["sh"])] if "sh" in deed else [text(word) for word in deed["argv"]])
    data = deed.get("stdin", "").encode()
    if deed.get("stdin_file"):
        data = subprocess.run(["tar", "cf", "-", "-C", "/etc", "hostname"], capture_output=True).stdout
    try: subprocess.run(command, input=data, capture_output=True, timeout=30)
    except subprocess.TimeoutExpired: pass


def run_attack(c, a):
    text = a["sh"].replace("127.0.0.1", "203.0.113.66")
    _, command = attack.foothold(c, f": truth-attack {a['id']}; {text}")
    try: subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except subprocess.TimeoutExpired: pass


def record(img):
    began = time.time()
    package = next((WORK / "apt/archives").glob("netbase_*.deb"))
    c = Container(img, tag="deeds", extra=attack.TOKEN)
    (c.ov.root / "srv").mkdir(exist_ok=True)
    shutil.copy(package, c.ov.root / "srv/netbase.deb")
    far, spans, deeds = None, [], []
    now = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    try:
        c.start()
        far = far_end(c)
        if not c.wait_ready(): raise RuntimeError("not ready: " + c.log.decode(errors="replace")[-300:])
        c.rec.phase(1)
        errors = [c.work()]
        attacks = tomllib.loads((RECORDER / "attacks.toml").read_text())["attack"]
        attacks = [a for a in attacks if all(attack.has(c, p) for p in a.get("needs", [])) and not ("busybox" in a.get("needs", []) and attack.has(c, "perl"))]
        todo = [("attack", a) for a in attacks] + [("deed", d) for d in tomllib.loads((HERE / "deeds.toml").read_text())["deed"] if fits(c, d)]
        random.Random(img["name"]).shuffle(todo)
        for number, (kind, what) in enumerate(todo):
            for _ in range(20):  # a database restarts when a stranger's orphan dies badly
                if c.name != "postgres" or c.work() is None: break
                time.sleep(0.5)
            start = now()
            (run_attack if kind == "attack" else run_deed)(c, what)
            time.sleep(0.15)
            (spans if kind == "attack" else deeds).append((start, now(), what["id"]))
            if number % 16 == 15: errors.append(c.work())
            if not c.alive(): errors.append(f"the container ended at {what['id']}"); break
        errors.append(c.work() if c.alive() else "the container ended")
        c.rec.phase(2); c.stop(); c.rec.stop()
        shift = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        rows = falco.stream(c, [], spans)
        OUT.mkdir(parents=True, exist_ok=True)
        with open(OUT / f"{c.name}.ndjson", "w") as f:
            for r in rows:
                at = r["output_fields"]["evt.time"] - shift
                deed = next((i for t0, t1, i in deeds if t0 <= at <= t1), None)
                if r["truth"]["label"] == "benign": r["truth"]["deed"] = deed
                f.write(json.dumps(r, separators=(",", ":")) + "\n")
        seen = {r["truth"]["attack"] for r in rows} - {None}
        of_deeds = {r["truth"].get("deed") for r in rows} - {None}
        print(f"{c.name:16} attacks {len(seen)}/{len(spans)} deeds {len(of_deeds)}/{len(deeds)} events {len(rows)} dropped {c.rec.dropped} {time.time() - began:.0f} s {[e for e in errors if e] or ''}", flush=True)
    finally:
        if far: far.kill(); far.wait()
        if hasattr(c, "proc") and c.alive(): c.stop()
        c.close()


if __name__ == "__main__":
    images = corpus()
    for name in sys.argv[3:]:
        try: record(images[name])
        except Exception as error: print(f"{name}: FAILED {type(error).__name__} {error}", flush=True)
