//! Sensors that wait to be asked: their stream is followed, and what comes goes where posts go.
//!
//! ```text
//! address ─lookup─► each node ─gRPC─► message ─JSON, as the sensor writes it─► Stream::append
//! ```
//!
//! A message becomes the sensor's own JSON, so that one adapter reads it whichever way it came (`tetragon`, `kubearmor`). These streams have no place to go on from: what a sensor sees while nobody follows is lost, and told as a blind
//! interval. While events cannot be kept the stream is not read, and the sensor holds what it can.

mod follow;
pub mod kubearmor;
pub mod tetragon;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use lineage::BlindRow;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use tonic::{
    codegen::http::Uri,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};
use tracing::warn;

use self::follow::{Follower, Way};
use crate::{door::Sensor, sensor::Dialect, stream::Stream};

/// Where a sensor is to be asked, and what is shown to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// `http://HOST:PORT`, `https://HOST:PORT` or `unix:///PATH`. A host of several addresses is several sensors, one on each node.
    address: String,
    /// PEM of the authorities of its certificate.
    ca: Option<PathBuf>,
    /// The name that its certificate has, where it is not the address' host.
    server_name: Option<String>,
    /// PEM of a client certificate.
    certificate: Option<PathBuf>,
    /// Its key.
    key: Option<PathBuf>,
}

impl Pull {
    /// What is wrong with it.
    pub(crate) fn problem(&self, dialect: &str) -> Option<String> {
        let is_pulled = matches!(dialect.parse(), Ok(Dialect::Tetragon | Dialect::KubeArmor));
        if !is_pulled {
            return Some(format!(
                "`pull`: no sensor of dialect {dialect} is asked; those of tetragon and kubearmor are"
            ));
        }
        let uri = self.address.parse::<Uri>().ok();
        let has_port = uri.is_some_and(|uri| uri.port().is_some());
        let is_tls = self.address.starts_with("https://");
        let is_known =
            (self.address.starts_with("http://") || is_tls) && has_port || self.address.starts_with("unix:///");
        if !is_known {
            return Some("`pull.address` must be http://HOST:PORT, https://HOST:PORT or unix:///PATH".to_owned());
        }
        if is_tls != self.ca.is_some() {
            return Some(
                "`pull.ca` goes with https, and https with it: the authority of the sensor's certificate".to_owned(),
            );
        }
        if self.certificate.is_some() != self.key.is_some() || self.certificate.is_some() && !is_tls {
            return Some("`pull.certificate` and `pull.key` belong together, with https".to_owned());
        }
        None
    }

    /// What speaks TLS to it, its files read.
    fn tls(&self) -> Result<Option<ClientTlsConfig>, String> {
        let read = |path: &PathBuf| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let Some(ca) = &self.ca else { return Ok(None) };
        let host = self.address.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
        let name = self.server_name.clone().unwrap_or(host);
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?)).domain_name(name);
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(Some(tls))
    }

    /// The addresses that its host has now; a path has none.
    async fn addresses(&self) -> std::io::Result<BTreeSet<Option<SocketAddr>>> {
        let Some((host, port)) =
            self.address.parse::<Uri>().ok().and_then(|uri| Some((uri.host()?.to_owned(), uri.port_u16()?)))
        else {
            return Ok([None].into());
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let addresses: BTreeSet<_> = tokio::net::lookup_host((host, port)).await?.map(Some).collect();
        Ok(addresses)
    }

    /// Connects to one of its addresses.
    fn endpoint(&self, address: Option<SocketAddr>, tls: Option<&ClientTlsConfig>) -> Result<Endpoint, String> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let text = address.map_or_else(|| self.address.clone(), |address| format!("{scheme}://{address}"));
        let endpoint = Endpoint::from_shared(text).map_err(|error| error.to_string())?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(ALIVE)
            .keep_alive_timeout(CONNECT)
            .keep_alive_while_idle(true);
        match tls {
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(|error| follow::told(&error)),
            None => Ok(endpoint),
        }
    }
}

/// Follows a sensor, on each node that its address stands for.
#[derive(Debug)]
pub struct Puller {
    sensor: Sensor,
    pull: Pull,
    dialect: Dialect,
    tls: Option<ClientTlsConfig>,
    stream: Stream,
    blind: mpsc::UnboundedSender<BlindRow>,
}

/// Why a sensor cannot be followed at all.
#[derive(Debug, thiserror::Error)]
#[error("the sensor {sensor}: {reason}")]
pub struct Error {
    sensor: String,
    reason: String,
}

impl Puller {
    /// For a sensor that is pulled; none for one that posts. `blind` is told of events that are lost.
    ///
    /// # Errors
    /// [`Error`]: a file that cannot be read, or is no certificate.
    pub fn new(
        sensor: &Sensor,
        stream: &Stream,
        blind: &mpsc::UnboundedSender<BlindRow>,
    ) -> Result<Option<Self>, Error> {
        let (Some(pull), Ok(dialect)) = (sensor.pull.clone(), sensor.dialect.parse()) else { return Ok(None) };
        let wrong = |reason| Error { sensor: sensor.name.clone(), reason };
        let tls = pull.tls().map_err(wrong)?;
        pull.endpoint(None, tls.as_ref()).map_err(wrong)?;
        let (sensor, stream, blind) = (sensor.clone(), stream.clone(), blind.clone());
        Ok(Some(Self { sensor, pull, dialect, tls, stream, blind }))
    }

    /// Follows until `shutdown`.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            () = self.follow() => {}
        }
    }

    /// Follows the addresses there are, and those that come; one that is gone is followed no more.
    async fn follow(&self) {
        let mut followed: BTreeMap<Option<SocketAddr>, AbortHandle> = BTreeMap::new();
        let mut followers = JoinSet::new();
        loop {
            match self.pull.addresses().await {
                Ok(addresses) => {
                    followed.retain(|address, follower| {
                        let is_there = addresses.contains(address);
                        if !is_there {
                            follower.abort();
                        }
                        is_there
                    });
                    for address in addresses {
                        followed.entry(address).or_insert_with(|| followers.spawn(self.follower(address).run()));
                    }
                }
                Err(error) => {
                    warn!(sensor = self.sensor.name, %error, "the address of a sensor is not found; it is looked up again");
                    if followed.is_empty() {
                        followed.insert(None, followers.spawn(self.follower(None).run()));
                    }
                }
            }
            while followers.try_join_next().is_some() {}
            tokio::time::sleep(LOOKUP).await;
        }
    }

    fn follower(&self, address: Option<SocketAddr>) -> Follower {
        let way = match self.dialect {
            Dialect::KubeArmor => Way::KubeArmor,
            _ => Way::Tetragon,
        };
        Follower {
            endpoint: self.pull.endpoint(address, self.tls.as_ref()),
            place: address.map_or_else(|| self.pull.address.clone(), |address| address.to_string()),
            way,
            sensor: self.sensor.clone(),
            stream: self.stream.clone(),
            blind: self.blind.clone(),
        }
    }
}

/// Takes out what a sensor's JSON leaves out: nothing, the empty text, the empty list.
fn pruned(value: &mut Value) {
    let is_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !is_nothing(field));
            fields.values_mut().for_each(pruned);
        }
        Value::Array(items) => items.iter_mut().for_each(pruned),
        _ => {}
    }
}

const CONNECT: Duration = Duration::from_secs(5);
/// How often a silent connection is tried: a node that vanished says no word.
const ALIVE: Duration = Duration::from_secs(15);
/// How often it is looked which nodes there are.
const LOOKUP: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde::{Serialize, de::DeserializeOwned};
    use serde_json::value::RawValue;

    use super::*;
    use crate::sensor;

    #[derive(Deserialize)]
    struct Sample {
        event: Box<RawValue>,
    }

    /// Events as the sensor writes them.
    fn samples(dialect: Dialect) -> Vec<(String, String)> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(dialect.name());
        let files = fs::read_dir(folder).expect("samples").map(|entry| entry.expect("an entry").path());
        let sample = |path: PathBuf| {
            let sample: Sample = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("a sample");
            (path.display().to_string(), sample.event.get().to_owned())
        };
        files.map(sample).collect()
    }

    /// The same event by way of the wire.
    fn by_wire<M: Message + Default + DeserializeOwned + Serialize>(event: &str) -> Vec<u8> {
        let message: M = serde_json::from_str(event).expect("a message");
        let read = M::decode(message.encode_to_vec().as_slice()).expect("the same message");
        follow::json(&read)
    }

    #[test]
    fn an_event_says_the_same_by_either_way() {
        // The stream has no such field: its directory entries are paths.
        let is_of_stream = |event: &str| !event.contains("dentry_arg");
        for (name, event) in samples(Dialect::Tetragon).into_iter().filter(|(_, event)| is_of_stream(event)) {
            let asked = by_wire::<tetragon::Event>(&event);
            let told = sensor::decode(Dialect::Tetragon, event.as_bytes()).expect("an event");
            assert_eq!(sensor::decode(Dialect::Tetragon, &asked), Ok(told), "{name}");
            let is_loss = event.contains("rate_limit_info") || event.contains("process_throttle");
            let keys = [event.as_bytes(), &asked].map(|item| sensor::key(Dialect::Tetragon, item));
            assert!(keys[0] == keys[1] || is_loss, "{name}");
        }
        for (name, event) in samples(Dialect::KubeArmor) {
            let is_log = event.contains("ContainerLog\"") || event.contains("HostLog\"");
            let asked = if is_log { by_wire::<kubearmor::Log>(&event) } else { by_wire::<kubearmor::Alert>(&event) };
            // On the wire a user who is not told and root are one.
            let mut event: serde_json::Value = serde_json::from_str(&event).expect("JSON");
            event.as_object_mut().expect("an object").entry("UID").or_insert_with(|| 0.into());
            let told = sensor::decode(Dialect::KubeArmor, event.to_string().as_bytes()).expect("an event");
            assert_eq!(sensor::decode(Dialect::KubeArmor, &asked), Ok(told), "{name}");
        }
    }

    fn problem(pull: &str, dialect: &str) -> Option<String> {
        toml::from_str::<Pull>(pull).expect("TOML").problem(dialect)
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        assert_eq!(problem("address = \"http://tetragon:54321\"", "tetragon"), None);
        assert_eq!(problem("address = \"unix:///run/tetragon.sock\"", "tetragon"), None);
        assert_eq!(problem("address = \"https://relay:32767\"\nca = \"ca.pem\"", "kubearmor"), None);
        for (pull, dialect, told) in [
            ("address = \"http://falco:5060\"", "falco", "dialect falco"),
            ("address = \"tetragon:54321\"", "tetragon", "`pull.address`"),
            ("address = \"http://tetragon\"", "tetragon", "`pull.address`"),
            ("address = \"https://tetragon:1\"", "tetragon", "`pull.ca`"),
            ("address = \"http://tetragon:1\"\nca = \"ca.pem\"", "tetragon", "`pull.ca`"),
            ("address = \"https://tetragon:1\"\nca = \"a\"\nkey = \"k\"", "tetragon", "belong together"),
        ] {
            assert!(problem(pull, dialect).is_some_and(|problem| problem.contains(told)), "{pull}");
        }
    }

    #[tokio::test]
    async fn a_host_of_several_addresses_is_several_sensors() {
        let pull = |address: &str| toml::from_str::<Pull>(&format!("address = \"{address}\"")).expect("TOML");
        let addresses = pull("http://127.0.0.1:5000").addresses().await.expect("found");
        assert_eq!(addresses, [Some(SocketAddr::from(([127, 0, 0, 1], 5000)))].into());
        assert_eq!(pull("unix:///x.sock").addresses().await.expect("a path"), [None].into());
    }
}
