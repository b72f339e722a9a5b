//! A registry that fails: a proxy on loopback lets everything through to a real one but what it is told to answer itself.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, atomic::AtomicBool, atomic::Ordering},
    thread,
    time::Duration,
};

/// What is answered instead of the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status, with an error of a registry in its body.
    Status(u16),
    /// 429, and to come back in two minutes.
    Throttled,
    /// Nothing, for as long as the asker waits.
    Hang,
    /// The true answer's head, and half of its body.
    Truncated,
    /// The true answer with one bit of its body turned.
    Other,
    /// 200 and a page, as a login or a load balancer answers.
    Page,
}

/// Whether a request, by method and path, is answered with the fault.
pub type Matches = fn(&str, &str) -> bool;

/// A running proxy; its port is closed when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    upstream: String,
    requests: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// A proxy before the registry at `upstream` (`HOST:PORT`), failing for what matches.
    pub fn start(upstream: &str, matches: Matches, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (requests, ended) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let proxy = Self { address, upstream: upstream.to_owned(), requests, ended };
        let (upstream, requests, ended) = (upstream.to_owned(), Arc::clone(&proxy.requests), Arc::clone(&proxy.ended));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let (upstream, requests) = (upstream.clone(), Arc::clone(&requests));
                // An asker that goes away is no concern of this side.
                thread::spawn(move || _ = serve(&stream, &upstream, &requests, (matches, fault)));
            }
        });
        proxy
    }

    /// A reference to the upstream registry as one to this proxy.
    pub fn reference(&self, reference: &str) -> String {
        reference.replace(&self.upstream, &self.address)
    }

    /// `HOST:PORT` of the proxy.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Every request since the last call: method and path.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().expect("no panic"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(
    stream: &TcpStream,
    upstream: &str,
    requests: &Mutex<Vec<String>>,
    (matches, fault): (Matches, Fault),
) -> std::io::Result<()> {
    let (head, body) = message(stream)?;
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    requests.lock().expect("no panic").push(format!("{method} {path}"));
    let mut answer = Vec::new();
    let fault = Some(fault).filter(|_| matches(method, path));
    if matches!(fault, None | Some(Fault::Truncated | Fault::Other)) {
        let mut onward = TcpStream::connect(upstream)?;
        let (first, rest) = head.split_once("\r\n").unwrap_or((&head, ""));
        write!(onward, "{first}\r\nConnection: close\r\n{rest}\r\n")?;
        onward.write_all(&body)?;
        onward.read_to_end(&mut answer)?;
    }
    let start = answer.windows(4).position(|end| end == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let middle = start + (answer.len() - start) / 2;
    match fault {
        None => {}
        Some(Fault::Truncated) => answer.truncate(middle),
        Some(Fault::Other) => answer.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1),
        Some(Fault::Page) => answer = plain("200 OK", "text/html", "<!doctype html><p>Log in"),
        Some(Fault::Throttled) => answer = plain("429 Too Many Requests\r\nRetry-After: 120", "text/plain", ""),
        Some(Fault::Status(status)) => {
            let body = r#"{"errors": [{"code": "X", "message": "the proxy says so"}]}"#;
            answer = plain(&format!("{status} Fault"), "application/json", body);
        }
        Some(Fault::Hang) => {
            let _ = (&*stream).read(&mut [0]);
        }
    }
    (&*stream).write_all(&answer)
}

/// A request's head, without the line that ends it, and its body.
fn message(stream: &TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(("content-length", value)) = line.to_ascii_lowercase().split_once(':') {
            length = value.trim().parse().unwrap_or(0);
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((head, body))
}

fn plain(status: &str, media_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
