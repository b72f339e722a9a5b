//! TLS as the server speaks it: a configuration made once, whose certificate and trusted client authorities change under it.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs},
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use tokio::sync::Notify;

use crate::{Error, Pair, pair::certificates};

/// How the server speaks TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServingOptions {
    /// Whether to offer HTTP/2 besides HTTP/1.1.
    pub http2: bool,
    /// Authorities in PEM: whoever connects must show a certificate of one of them, as an API server does when it is set up to.
    /// The file is read again as it changes.
    pub client_authorities: Option<PathBuf>,
    /// Whether who connects may also show none, because it has other ways to say who it is. What is shown is verified still.
    pub is_client_optional: bool,
    /// The cryptography; aws-lc-rs where it is absent.
    pub provider: Option<Provider>,
}

/// Cryptography for TLS, such as a validated module.
#[derive(Clone)]
pub struct Provider(pub Arc<CryptoProvider>);

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider")
    }
}

impl PartialEq for Provider {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Provider {}

/// A server's side of TLS. Clones share the certificate.
#[derive(Clone)]
pub struct Serving {
    current: Arc<Current>,
    config: Arc<ServerConfig>,
    provider: Arc<CryptoProvider>,
    client_authorities: Option<PathBuf>,
}

/// How certificates stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Seconds until the certificate that is served expires; negative once it has. Absent where none is served yet.
    pub expires_in: Option<i64>,
    /// Seconds until the authority that issued it expires, where it is our own.
    pub authority_expires_in: Option<i64>,
    /// What went wrong when it was last looked after; what was good before is served.
    pub problem: Option<String>,
}

impl Serving {
    /// TLS 1.2 and 1.3, without a certificate yet: handshakes fail until [`crate::run`] found one.
    ///
    /// # Errors
    /// [`Error::Tls`] where the cryptography lacks what these versions take.
    pub fn new(options: &ServingOptions) -> Result<Self, Error> {
        let provider = match &options.provider {
            Some(Provider(provider)) => provider.clone(),
            None => Arc::new(aws_lc_rs::default_provider()),
        };
        let current = Arc::new(Current {
            pair: ArcSwapOption::empty(),
            clients: ArcSwapOption::empty(),
            is_client_checked: options.client_authorities.is_some(),
            is_client_optional: options.is_client_optional,
            algorithms: provider.signature_verification_algorithms,
            changed: Notify::new(),
            notes: Mutex::default(),
        });
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let mut config = if options.client_authorities.is_some() {
            builder.with_client_cert_verifier(current.clone()).with_cert_resolver(current.clone())
        } else {
            builder.with_no_client_auth().with_cert_resolver(current.clone())
        };
        if options.client_authorities.is_some() {
            // A session that is resumed is not verified again, also where its authority is trusted no more.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols =
            [options.http2.then_some(b"h2".to_vec()), Some(b"http/1.1".to_vec())].into_iter().flatten().collect();
        let client_authorities = options.client_authorities.clone();
        Ok(Self { current, config: Arc::new(config), provider, client_authorities })
    }

    /// For whatever accepts connections: it need not be told of new certificates.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Whether handshakes can succeed: there is a certificate, and where clients are checked, authorities for it.
    pub fn is_ready(&self) -> bool {
        self.current.pair.load().is_some() && (!self.current.is_client_checked || self.current.clients.load().is_some())
    }

    /// Until [`Serving::is_ready`]. Who waits here before he accepts lets early connections wait, instead of refusing them.
    pub async fn ready(&self) {
        loop {
            let changed = self.current.changed.notified();
            if self.is_ready() {
                return;
            }
            changed.await;
        }
    }

    /// How certificates stand.
    pub fn status(&self, now: Timestamp) -> Status {
        let notes = self.current.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |until: Timestamp| until.as_second() - now.as_second();
        Status {
            expires_in: self.current.pair.load().as_ref().map(|pair| left(pair.not_after())),
            authority_expires_in: notes.authority_not_after.map(left),
            problem: notes.problem.clone(),
        }
    }

    /// Serves this certificate from the next handshake on. Returns whether it is another one.
    pub fn replace(&self, pair: Pair) -> bool {
        if self.current.pair.load().as_deref() == Some(&pair) {
            return false;
        }
        self.current.pair.store(Some(Arc::new(pair)));
        self.current.changed.notify_waiters();
        true
    }

    /// Takes certificates of these authorities from clients, from the next handshake on.
    ///
    /// # Errors
    /// [`Error::Pair`] where they cannot be read; the ones before stay.
    pub fn replace_client_authorities(&self, place: &str, pem: &[u8]) -> Result<(), Error> {
        let wrong = |reason: String| Error::Pair { place: place.to_owned(), reason };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem).map_err(wrong)? {
            roots.add(certificate).map_err(|error| wrong(format!("no authority: {error}")))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        self.current.clients.store(Some(Arc::new(verifier)));
        self.current.changed.notify_waiters();
        Ok(())
    }

    pub(crate) fn provider(&self) -> &CryptoProvider {
        &self.provider
    }

    pub(crate) fn client_authorities(&self) -> Option<&PathBuf> {
        self.client_authorities.as_ref()
    }

    pub(crate) fn note(&self, authority_not_after: Option<Timestamp>, problem: Option<String>) {
        let mut notes = self.current.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.authority_not_after = authority_not_after.or(notes.authority_not_after);
        notes.problem = problem;
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("pair", &self.current.pair.load()).finish_non_exhaustive()
    }
}

/// What is served and believed now.
struct Current {
    pair: ArcSwapOption<Pair>,
    clients: ArcSwapOption<Arc<dyn ClientCertVerifier>>,
    is_client_checked: bool,
    is_client_optional: bool,
    algorithms: WebPkiSupportedAlgorithms,
    changed: Notify,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    authority_not_after: Option<Timestamp>,
    problem: Option<String>,
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").field("pair", &self.pair.load()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.pair.load().as_ref().map(|pair| pair.certified().clone())
    }
}

impl ClientCertVerifier for Current {
    fn client_auth_mandatory(&self) -> bool {
        !self.is_client_optional
    }

    /// None: they change, and a client that has but one certificate shows it without a hint.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.clients.load().as_deref() {
            Some(verifier) => verifier.verify_client_cert(leaf, intermediates, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
        thread,
    };

    use rustls::{ClientConnection, ServerConnection, StreamOwned};

    use super::*;
    use crate::{
        Authority, Lifetimes, Step,
        probe::{BOTH, Versions, client, shake},
    };

    const ONLY_12: Versions = &[&rustls::version::TLS12];
    const ONLY_13: Versions = &[&rustls::version::TLS13];

    fn authority(now: Timestamp) -> Authority {
        Authority::begin(&["a.svc".to_owned()].into(), &Lifetimes::default(), now).expect("issued")
    }

    fn pair(authority: &Authority) -> Pair {
        let (chain, key) = authority.leaf();
        Pair::parse("test", chain.as_bytes(), key.as_bytes(), &aws_lc_rs::default_provider()).expect("a pair")
    }

    #[test]
    fn without_a_certificate_no_handshake_succeeds_and_then_every_version_does() {
        let now = Timestamp::now();
        let serving = Serving::new(&ServingOptions { http2: true, ..ServingOptions::default() }).expect("TLS");
        let authority = authority(now);
        let shaken = |versions: Versions| shake(serving.config(), client(&authority.bundle(), None, now, versions));
        assert!(!serving.is_ready() && serving.status(now) == Status::default() && shaken(BOTH).is_err());
        assert!(serving.replace(pair(&authority)) && !serving.replace(pair(&authority)), "only another one is new");
        for versions in [ONLY_12, ONLY_13] {
            assert_eq!(shaken(versions).expect("a handshake").1.as_deref(), Some(&b"h2"[..]));
        }
        assert!(serving.is_ready());
        let left = serving.status(now + std::time::Duration::from_secs(86_400)).expires_in;
        assert_eq!(left, Some(89 * 86_400));
        let one = Serving::new(&ServingOptions::default()).expect("TLS");
        one.replace(pair(&authority));
        let agreed = shake(one.config(), client(&authority.bundle(), None, now, BOTH)).expect("a handshake").1;
        assert_eq!(agreed.as_deref(), Some(&b"http/1.1"[..]));
    }

    #[tokio::test]
    async fn who_waits_for_a_certificate_learns_of_it() {
        let serving = Serving::new(&ServingOptions::default()).expect("TLS");
        let waits = tokio::spawn({
            let serving = serving.clone();
            async move { serving.ready().await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        serving.replace(pair(&authority(Timestamp::now())));
        waits.await.expect("it was woken");
        serving.ready().await;
    }

    #[test]
    fn a_pair_that_does_not_match_is_refused_without_its_key() {
        let now = Timestamp::now();
        let (one, other) = (authority(now), authority(now));
        let provider = aws_lc_rs::default_provider();
        let key = other.leaf().1;
        for (chain, key) in [(one.leaf().0, key), ("", key), (one.leaf().0, "nothing"), ("nothing", key)] {
            let error = Pair::parse("here", chain.as_bytes(), key.as_bytes(), &provider).expect_err("a refusal");
            let text = format!("{error} {error:?}");
            assert!(text.contains("here") && key.lines().nth(1).is_none_or(|line| !text.contains(line)), "{text}");
        }
        assert!(!format!("{:?} {:?}", one, pair(&one)).contains("PRIVATE"));
    }

    #[test]
    fn clients_are_checked_against_authorities_that_change() {
        let now = Timestamp::now();
        let options = ServingOptions { client_authorities: Some("unused".into()), ..ServingOptions::default() };
        let serving = Serving::new(&options).expect("TLS");
        let (server, cluster, other) = (authority(now), client_authority(), client_authority());
        serving.replace(pair(&server));
        let as_client = |identity: Option<&(String, String, String)>| {
            let identity = identity.map(|(_, chain, key)| (chain.as_str(), key.as_str()));
            shake(serving.config(), client(&server.bundle(), identity, now, BOTH)).is_ok()
        };
        assert!(!serving.is_ready() && !as_client(Some(&cluster)), "no authorities yet: nobody is let in");
        serving.replace_client_authorities("f", cluster.0.as_bytes()).expect("authorities");
        assert!(serving.is_ready() && as_client(Some(&cluster)) && !as_client(Some(&other)) && !as_client(None));
        for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(serving.replace_client_authorities("f", broken.as_bytes()).is_err());
        }
        assert!(as_client(Some(&cluster)), "the ones before stay");
        serving.replace_client_authorities("f", other.0.as_bytes()).expect("authorities");
        assert!(!as_client(Some(&cluster)) && as_client(Some(&other)));
    }

    /// An authority's certificate, a client's of it, and its key.
    fn client_authority() -> (String, String, String) {
        use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("signed").pem();
        let mut leaf = CertificateParams::default();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf_key = KeyPair::generate().expect("a key");
        let leaf = leaf.signed_by(&leaf_key, &Issuer::new(params, key)).expect("signed").pem();
        (root, leaf, leaf_key.serialize_pem())
    }

    /// Clients over loopback that trust what an API server would, while certificates and authorities change.
    #[test]
    fn no_handshake_fails_while_certificates_change_under_load() {
        let now = Timestamp::now();
        let (names, lifetimes) = (["a.svc".to_owned()].into(), Lifetimes::default());
        let first = authority(now);
        let serving = Serving::new(&ServingOptions::default()).expect("TLS");
        serving.replace(pair(&first));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (is_over, is_closed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let accepting = {
            let (serving, is_closed) = (serving.clone(), is_closed.clone());
            thread::spawn(move || {
                let mut serves = Vec::new();
                for stream in listener.incoming() {
                    if is_closed.load(Ordering::SeqCst) {
                        break;
                    }
                    let connection = ServerConnection::new(serving.config()).expect("TLS");
                    serves.push(thread::spawn(move || {
                        let mut stream = StreamOwned::new(connection, stream.expect("a stream"));
                        let mut byte = [0];
                        while matches!(stream.read(&mut byte), Ok(1)) {
                            stream.write_all(&byte).expect("sent");
                        }
                    }));
                }
                serves.into_iter().for_each(|serve| serve.join().expect("no panic"));
            })
        };
        // Those who trust the first authority alone go on while both are in the bundle.
        let (old_bundle, shaken) = (first.bundle(), Arc::new(AtomicUsize::new(0)));
        let added = first.after(Step::AddAuthority, &names, &lifetimes, now).expect("issued");
        let both = added.bundle();
        let is_switched = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let (old_bundle, both, shaken) = (old_bundle.clone(), both.clone(), shaken.clone());
                let (is_over, is_switched) = (is_over.clone(), is_switched.clone());
                thread::spawn(move || {
                    while !is_over.load(Ordering::SeqCst) {
                        let bundle = if is_switched.load(Ordering::SeqCst) { &both } else { &old_bundle };
                        let config = Arc::new(client(bundle, None, now, BOTH));
                        let connection = ClientConnection::new(config, "a.svc".try_into().expect("a name"));
                        let stream = TcpStream::connect(address).expect("connected");
                        let mut stream = StreamOwned::new(connection.expect("TLS"), stream);
                        let mut byte = [7];
                        stream.write_all(&byte).and_then(|()| stream.read_exact(&mut byte)).expect("a handshake");
                        shaken.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let wait = |count| {
            let until = shaken.load(Ordering::SeqCst) + count;
            while shaken.load(Ordering::SeqCst) < until && clients.iter().all(|client| !client.is_finished()) {
                thread::yield_now();
            }
        };
        let mut authority = added;
        for _ in 0..20 {
            authority = authority.after(Step::RenewLeaf, &names, &lifetimes, now).expect("issued");
            assert!(serving.replace(pair(&authority)));
            wait(5);
        }
        // Bundles spread, then the new authority issues.
        is_switched.store(true, Ordering::SeqCst);
        wait(10);
        authority = authority.after(Step::SwitchAuthority, &names, &lifetimes, now).expect("issued");
        for _ in 0..20 {
            authority = authority.after(Step::RenewLeaf, &names, &lifetimes, now).expect("issued");
            assert!(serving.replace(pair(&authority)));
            wait(5);
        }
        is_over.store(true, Ordering::SeqCst);
        clients.into_iter().for_each(|client| client.join().expect("no handshake failed"));
        is_closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(address);
        accepting.join().expect("no panic");
        assert!(shaken.load(Ordering::SeqCst) >= 200);
    }
}
