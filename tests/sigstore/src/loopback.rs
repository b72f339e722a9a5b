//! A server on loopback for answers that no real server gives: a connection in, whatever the test writes out.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener},
    sync::Arc,
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A connection.
pub trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// Answers each connection, until the process ends: its port, and the authority of its certificate; empty without TLS.
pub fn serve(tls: bool, answer: impl Fn(&mut dyn Stream) -> io::Result<()> + Clone + Send + 'static) -> (u16, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    let made = tls.then(|| rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate"));
    let config = made.as_ref().map(|made| {
        let key = made.signing_key.serialize_der().try_into().expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a certificate and its key");
        Arc::new(config)
    });
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (answer, config) = (answer.clone(), config.clone());
            // Whoever does not trust it breaks off.
            thread::spawn(move || match config {
                None => answer(&mut stream),
                Some(config) => {
                    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
                    let mut stream = StreamOwned::new(connection, stream);
                    answer(&mut stream)?;
                    stream.conn.send_close_notify();
                    stream.flush()
                }
            });
        }
    });
    (port, made.map(|made| made.cert.pem()).unwrap_or_default())
}
