//! Syslog by UDP (RFC 5426), TCP with octet counting (RFC 6587) and TLS (RFC 5425).
//!
//! No receiver says that it has a message. A batch by TCP or TLS has a connection of its own, which is ended by us and then by the receiver:
//! what it never read shows as an error there, where on a kept connection it would be lost unseen. UDP may lose anything, unseen.

use std::{io, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};
use tokio_rustls::TlsConnector;

use super::config::{self, Sink};
use crate::settings::SettingsError;

/// A receiver.
pub(super) struct Syslog {
    transport: Transport,
    host: String,
    port: u16,
}

enum Transport {
    Udp,
    Tcp,
    Tls(TlsConnector, ServerName<'static>),
}

impl Syslog {
    pub(super) fn open(sink: &Sink) -> Result<Self, SettingsError> {
        let error = |reason| sink.wrong(reason);
        let (scheme, host, port) = sink
            .address
            .as_deref()
            .and_then(config::split_address)
            .ok_or_else(|| error("`address` is no address".to_owned()))?;
        let transport = match scheme {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp,
            _ => {
                let path = sink.ca_file.as_deref().unwrap_or(std::path::Path::new(""));
                let pem = config::read(path).map_err(error)?;
                let config = tls(&pem).map_err(|reason| error(format!("`ca_file` {}: {reason}", path.display())))?;
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|_| error(format!("`address`: {host:?} is no name that a certificate may have")))?;
                Transport::Tls(TlsConnector::from(Arc::new(config)), name)
            }
        };
        Ok(Self { transport, host: host.to_owned(), port })
    }

    /// Bytes that a message may have: a datagram is not to be cut in two, and a stream's receiver has its limit too.
    pub(super) const fn max_bytes(&self) -> usize {
        match self.transport {
            Transport::Udp => 2048,
            Transport::Tcp | Transport::Tls(..) => 8192,
        }
    }

    pub(super) async fn send(&self, messages: &[String]) -> io::Result<()> {
        let to = (self.host.as_str(), self.port);
        if matches!(self.transport, Transport::Udp) {
            let peer = tokio::net::lookup_host(to).await?.next().ok_or(io::ErrorKind::NotFound)?;
            let any: std::net::IpAddr = match peer {
                std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
                std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(peer).await?;
            for message in messages {
                socket.send(message.as_bytes()).await?;
            }
            return Ok(());
        }
        let stream = TcpStream::connect(to).await?;
        match &self.transport {
            Transport::Tls(connector, name) => all(connector.connect(name.clone(), stream).await?, messages).await,
            Transport::Udp | Transport::Tcp => all(stream, messages).await,
        }
    }
}

async fn all(mut stream: impl AsyncRead + AsyncWrite + Unpin, messages: &[String]) -> io::Result<()> {
    for message in messages {
        stream.write_all(format!("{} {message}", message.len()).as_bytes()).await?;
    }
    stream.shutdown().await?;
    let mut sink = [0; 256];
    let end = async {
        loop {
            match stream.read(&mut sink).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // Not all receivers say goodbye in TLS.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    // Some keep their side open.
    tokio::time::timeout(GOODBYE, end).await.unwrap_or(Ok(()))
}

fn tls(pem: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

/// How long the receiver's end of a connection is waited for.
const GOODBYE: Duration = Duration::from_secs(2);
