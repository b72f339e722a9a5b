//! `mayfly demo`: an OCI image of the running program and the libraries it needs, made here, analyzed like any other, and shown.
//! It needs nothing but itself: no network, no cluster, no other image.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use dna::{Digest, Limits};
use serde_json::json;

use crate::{
    analyze::{self, Found},
    args::Demo,
    html, human,
    output::{self, Destination},
};

/// Runs the demo.
pub(crate) fn run(args: &Demo) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder (TMPDIR)")?;
    let layout = folder.path().join("image");
    build(&layout).context("cannot build an image of the running program")?;
    output::say("Built an OCI image of this program and the libraries it needs; this is what it says of itself:\n");
    let source = format!("oci:{}", layout.display()).parse().context("the demo's own image")?;
    let images = analyze::open(&source, &oci::Options::default())?;
    let mut image = images.into_iter().next().context("the demo's image is empty")?;
    // Its true name is a temporary folder's.
    image.name = "mayfly:demo".to_owned();
    let analysis = analyze::analyze(&image, &Limits::default(), None)?;
    let found = Found { image: &image, analysis: &analysis, asked: None };
    let destination = Destination::default();
    destination.write(human::render(&found, &human::Style::of(&destination)).as_bytes())?;
    let page = html::render(&analyze::report(&found)?);
    if let Some(path) = &args.output {
        Destination(Some(path.clone())).write(page.as_bytes())?;
        output::say(&format!("\nThe same as a page: {}", path.display()));
    }
    if args.no_wait {
        return Ok(());
    }
    serve(&page)
}

/// The layout of an image that holds the running program: its libraries below, itself on top.
fn build(layout: &Path) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("cannot find the running program")?;
    let mut libraries = Archive::default();
    for library in mapped(&own)? {
        libraries.file(
            &library,
            0o755,
            &fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?,
        )?;
        // The names it is asked for by are links beside it or in another folder.
        for link in links_to(&library) {
            libraries.link(&link, &library)?;
        }
    }
    let mut program = Archive::default();
    program.file(Path::new("/usr/bin/mayfly"), 0o755, &fs::read(&own).context("cannot read the running program")?)?;
    program.file(
        Path::new("/etc/passwd"),
        0o644,
        b"root:x:0:0:root:/root:/sbin/nologin\nmayfly:x:65532:65532::/:/sbin/nologin\n",
    )?;
    program.file(Path::new("/etc/group"), 0o644, b"root:x:0:\nmayfly:x:65532:\n")?;
    let steps = ["COPY the libraries of the program", "COPY mayfly /usr/bin/mayfly"];
    write_layout(layout, &[libraries.finish()?, program.finish()?], &steps)
}

/// Files mapped executable into this process, but for the program itself: the loader and the libraries.
fn mapped(own: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let maps = fs::read_to_string("/proc/self/maps").context("cannot read /proc/self/maps")?;
    let mut found: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let permissions = fields.nth(1)?;
            let path = fields.nth(3)?;
            (permissions.contains('x') && path.starts_with('/')).then(|| PathBuf::from(path))
        })
        .filter(|path| path != own && path.is_file())
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Links in the loader's usual folders that lead to a library.
fn links_to(library: &Path) -> Vec<PathBuf> {
    let beside = library.parent().map(Path::to_path_buf);
    let folders = ["/lib64", "/lib", "/usr/lib64", "/usr/lib"].map(PathBuf::from).into_iter().chain(beside);
    let mut links = Vec::new();
    for folder in folders {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let leads_there = path != library && fs::canonicalize(&path).is_ok_and(|target| target == library);
            if leads_there && !links.contains(&path) {
                links.push(path);
            }
        }
    }
    links.sort();
    links
}

/// A layer in the making: files of root, without times, so that equal programs give equal images.
#[derive(Default)]
struct Archive(BTreeMap<PathBuf, (u32, Body)>);

enum Body {
    File(Vec<u8>),
    Link(PathBuf),
}

impl Archive {
    fn file(&mut self, path: &Path, mode: u32, body: &[u8]) -> anyhow::Result<()> {
        self.0.insert(path.strip_prefix("/")?.to_path_buf(), (mode, Body::File(body.to_vec())));
        Ok(())
    }

    fn link(&mut self, path: &Path, target: &Path) -> anyhow::Result<()> {
        self.0.entry(path.strip_prefix("/")?.to_path_buf()).or_insert((0o777, Body::Link(target.to_path_buf())));
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, (mode, body)) in self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            match body {
                Body::File(body) => {
                    header.set_size(u64::try_from(body.len())?);
                    tar.append_data(&mut header, path, body.as_slice())?;
                }
                Body::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(tar.into_inner()?)
    }
}

fn write_layout(layout: &Path, archives: &[Vec<u8>], steps: &[&str]) -> anyhow::Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let put = |body: &[u8], media_type: &str| -> anyhow::Result<serde_json::Value> {
        let digest = Digest::sha256(body);
        fs::write(blobs.join(digest.hex()), body)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": body.len() }))
    };
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for archive in archives {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(archive)?;
        layers.push(put(&gzip.finish()?, "application/vnd.oci.image.layer.v1.tar+gzip")?);
        diff_ids.push(Digest::sha256(archive));
    }
    let platform = dna::Platform::host();
    let config = json!({
        "architecture": platform.architecture(), "os": platform.os(),
        "config": {
            "User": "mayfly", "WorkingDir": "/", "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "Entrypoint": ["mayfly"], "Cmd": ["demo", "--no-wait"],
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": steps.iter().map(|step| json!({ "created_by": step })).collect::<Vec<_>>(),
    });
    let config = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    let manifest = put(manifest.to_string().as_bytes(), media_type)?;
    fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())?;
    Ok(fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?)
}

/// Shows the page to browsers of this machine until the program is ended.
fn serve(page: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on 127.0.0.1")?;
    let address = listener.local_addr().context("cannot listen on 127.0.0.1")?;
    output::say(&format!("\nThe same as a page: http://{address}/  (Ctrl-C ends)"));
    for stream in listener.incoming() {
        // A browser that goes away is its own affair.
        let _ = stream.and_then(|stream| answer(stream, page));
    }
    Ok(())
}

fn answer(stream: TcpStream, page: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut request = String::new();
    std::io::Read::take(BufReader::new(&stream), 8 << 10).read_line(&mut request)?;
    let (status, body) = match request.split(' ').collect::<Vec<_>>().as_slice() {
        ["GET", "/", ..] => ("200 OK", page),
        ["GET", ..] => ("404 Not Found", "not found\n"),
        _ => ("405 Method Not Allowed", "only GET\n"),
    };
    write!(
        &stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\
         X-Content-Type-Options: nosniff\r\n\r\n{body}",
        body.len()
    )
}
