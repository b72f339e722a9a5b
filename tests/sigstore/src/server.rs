//! The instance over HTTP, on loopback, for signing clients: Fulcio v2, Rekor v1 and v2, time-stamping.
//!
//! It believes what it is told: identity tokens, proofs of possession and signatures are not checked. A connection
//! carries one request.

use crate::{
    Identity, Instance, LogVersion,
    certificate::PublicP256,
    der,
    entry::{Entry, Envelope, Subject, Verifier},
    key::{self, Digest},
    log::hex,
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves an instance on a free port.
    pub fn start(instance: Arc<Instance>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok).take_while(|_| !stopped.load(Ordering::Relaxed)) {
                let instance = Arc::clone(&instance);
                std::thread::spawn(move || serve(&instance, &stream));
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    /// Base URL of authority and logs, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// URL of the time-stamping authority.
    pub fn timestamp_url(&self) -> String {
        format!("{}{TIMESTAMP}", self.url())
    }

    /// `signing_config.json` v0.2 with this server and one version of the log.
    pub fn signing_config(&self, log: LogVersion) -> String {
        let service = |url: String, version: u32| {
            json!({
                "url": url,
                "majorApiVersion": version,
                "validFor": { "start": "2020-01-01T00:00:00Z" },
                "operator": "sigstore.test",
            })
        };
        let version = match log {
            LogVersion::V1 => 1,
            LogVersion::V2 => 2,
        };
        json!({
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service(self.url(), 1)],
            "oidcUrls": [service(format!("{}/auth", self.url()), 1)],
            "rekorTlogUrls": [service(self.url(), version)],
            "rekorTlogConfig": { "selector": "ANY" },
            "tsaUrls": [service(self.timestamp_url(), 1)],
            "tsaConfig": { "selector": "ANY" },
        })
        .to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A last connection wakes the thread.
        let _ = TcpStream::connect(self.address);
        self.thread.take().map(JoinHandle::join);
    }
}

/// An identity token (JWT) for someone, which this server takes; nobody signed it.
pub fn identity_token(identity: &Identity, issuer: &str) -> String {
    let mut claims = json!({ "iss": issuer, "aud": "sigstore", "exp": 4_102_444_800_u64, "iat": 0 });
    match identity {
        Identity::Email(address) => {
            claims["sub"] = "a number".into();
            claims["email"] = address.as_str().into();
            claims["email_verified"] = true.into();
        }
        Identity::Uri(uri) => claims["sub"] = uri.as_str().into(),
    }
    let parts = [json!({ "alg": "none" }), claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{}.{}.", parts[0], parts[1])
}

/// Answers one request; a client that goes away is its own matter.
fn serve(instance: &Instance, stream: &TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let Some((path, body)) = read(stream) else { return };
    let answer = match path.as_str() {
        FULCIO => certificate(instance, &body),
        REKOR_V1 => entry_v1(instance, &body),
        REKOR_V2 => entry_v2(instance, &body),
        TIMESTAMP => timestamp(instance, &body),
        _ => None,
    };
    let kind = if path == TIMESTAMP { "application/timestamp-reply" } else { "application/json" };
    let (status, body) = match answer {
        Some(body) => ("201 Created", body),
        None => ("400 Bad Request", b"{\"code\":400,\"message\":\"not understood\"}".to_vec()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = stream;
    let _ = stream.write_all(&[head.as_bytes(), &body].concat());
}

/// Path and body of a request.
fn read(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream.take(MAX_REQUEST_BYTES));
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.strip_prefix("POST ")?.split(' ').next()?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![];
    reader.take(length).read_to_end(&mut body).ok()?;
    Some((path, body))
}

/// Fulcio, `POST /api/v2/signingCert`: the certificate for a P-256 key in PEM.
fn certificate(instance: &Instance, body: &[u8]) -> Option<Vec<u8>> {
    let request: Value = serde_json::from_slice(body).ok()?;
    let token = request["credentials"]["oidcIdentityToken"].as_str()?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let identity = match claims["email"].as_str() {
        Some(address) => Identity::Email(address.to_owned()),
        None => Identity::Uri(claims["sub"].as_str()?.to_owned()),
    };
    let public = from_pem(request["publicKeyRequest"]["publicKey"]["content"].as_str()?)?;
    // The point is all that differs between keys on this curve.
    let point = public.get(public.len().checked_sub(65)?..)?.to_vec();
    let issuer = claims["iss"].as_str()?;
    let leaf = instance.keyless(identity, issuer).certificate_for(&PublicP256(point))?;
    let mut chain = vec![key::pem("CERTIFICATE", &leaf)];
    chain.extend(instance.trusted.authority.chain().map(|der| key::pem("CERTIFICATE", der)));
    Some(json!({ "signedCertificateEmbeddedSct": { "chain": { "certificates": chain } } }).to_string().into_bytes())
}

/// Rekor, `POST /api/v1/log/entries`: `hashedrekord` and `dsse`, both 0.0.1.
fn entry_v1(instance: &Instance, body: &[u8]) -> Option<Vec<u8>> {
    let request: Value = serde_json::from_slice(body).ok()?;
    let spec = &request["spec"];
    let (entry, body) = match request["kind"].as_str()? {
        "hashedrekord" => {
            let signature = BASE64_STANDARD.decode(spec["signature"]["content"].as_str()?).ok()?;
            let subject = Subject {
                digest: digest(&from_hex(spec["data"]["hash"]["value"].as_str()?)?)?,
                signature: &signature,
                verifier: verifier(spec["signature"]["publicKey"]["content"].as_str()?)?,
                envelope: None,
            };
            (Entry::HashedRekord, Entry::HashedRekord.body(&subject))
        }
        "dsse" => {
            let text = spec["proposedContent"]["envelope"].as_str()?;
            let envelope: Value = serde_json::from_str(text).ok()?;
            let payload = BASE64_STANDARD.decode(envelope["payload"].as_str()?).ok()?;
            let signature = BASE64_STANDARD.decode(envelope["signatures"][0]["sig"].as_str()?).ok()?;
            let payload_type = envelope["payloadType"].as_str()?;
            let subject = Subject {
                digest: Digest::Sha256([0; 32]),
                signature: &signature,
                verifier: verifier(spec["proposedContent"]["verifiers"][0].as_str()?)?,
                envelope: Some(Envelope { json: text.as_bytes(), payload: &payload, payload_type }),
            };
            (Entry::Dsse, Entry::Dsse.body(&subject))
        }
        _ => return None,
    };
    let logged = instance.trusted.log(LogVersion::V1).append(entry.kind(), body, instance.time);
    let uuid = hex(&crate::log::leaf_hash(&logged.body));
    Some(json!({ uuid: logged.answer() }).to_string().into_bytes())
}

/// Rekor on tiles, `POST /api/v2/log/entries`: `hashedrekord` 0.0.2.
fn entry_v2(instance: &Instance, body: &[u8]) -> Option<Vec<u8>> {
    let request: Value = serde_json::from_slice(body).ok()?;
    let request = &request["hashedRekordRequestV002"];
    let bytes = |value: &Value| BASE64_STANDARD.decode(value.as_str()?).ok();
    let signature = bytes(&request["signature"]["content"])?;
    let verifier = &request["signature"]["verifier"];
    let subject = Subject {
        digest: digest(&bytes(&request["digest"])?)?,
        signature: &signature,
        verifier: match bytes(&verifier["x509Certificate"]["rawBytes"]) {
            Some(der) => Verifier::Certificate(der),
            None => {
                Verifier::Key(bytes(&verifier["publicKey"]["rawBytes"])?, verifier["keyDetails"].as_str()?.to_owned())
            }
        },
        envelope: None,
    };
    let entry = Entry::HashedRekordV2;
    let log = instance.trusted.log(LogVersion::V2);
    let logged = log.append(entry.kind(), entry.body(&subject), instance.time);
    Some(logged.json().to_string().into_bytes())
}

/// RFC 3161, section 3.4: a TimeStampReq of version, imprint, and perhaps policy, nonce, and wish for certificates.
fn timestamp(instance: &Instance, body: &[u8]) -> Option<Vec<u8>> {
    if body.first() != Some(&0x30) {
        return None;
    }
    let parts = der::children(body);
    let nonce = parts.iter().skip(2).find(|part| part[0] == 0x02).copied();
    Some(instance.trusted.timestamps.respond(parts.get(1)?, nonce, instance.time))
}

fn digest(bytes: &[u8]) -> Option<Digest> {
    Some(match bytes.len() {
        48 => Digest::Sha384(bytes.try_into().ok()?),
        _ => Digest::Sha256(bytes.try_into().ok()?),
    })
}

/// Base64 of the PEM of a certificate or key, with any line ends.
fn verifier(base64: &str) -> Option<Verifier> {
    let pem = String::from_utf8(BASE64_STANDARD.decode(base64).ok()?).ok()?;
    let der = from_pem(&pem)?;
    // Only a certificate's name is in its entries.
    Some(if pem.contains("CERTIFICATE") { Verifier::Certificate(der) } else { Verifier::Key(der, String::new()) })
}

fn from_pem(pem: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).ok()
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

const FULCIO: &str = "/api/v2/signingCert";
const REKOR_V1: &str = "/api/v1/log/entries";
const REKOR_V2: &str = "/api/v2/log/entries";
const TIMESTAMP: &str = "/api/v1/timestamp";
const MAX_REQUEST_BYTES: u64 = 64 << 20;
