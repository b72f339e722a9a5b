//! Where a ledger is: a URL in, what to connect to out. Passwords stay inside and are never shown.

use std::{path::PathBuf, str::FromStr as _};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::Error;

/// A ledger's place.
#[derive(Clone)]
pub(crate) enum Location {
    /// A file.
    Sqlite(PathBuf),
    /// A server's database.
    Postgres(Box<PgConnectOptions>),
}

impl Location {
    /// Reads `sqlite:PATH`, `postgres://…` or `postgresql://…`.
    ///
    /// A server that is not on this machine is spoken to over TLS, with its name verified, unless the URL says otherwise by
    /// `sslmode`: what `prefer` does by default, falling back to plain text, an attacker on the way can bring about.
    ///
    /// # Errors
    /// [`Error::Url`].
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let scheme = url.split(':').next().unwrap_or_default();
        let wrong = |reason: String| Error::Url { shown: format!("{}:…", clipped(scheme)), reason };
        match scheme {
            "sqlite" => {
                let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
                if path.is_empty() || path.contains(['?', '\0']) || path == ":memory:" {
                    return Err(wrong("a path to a file is expected after `sqlite:`".to_owned()));
                }
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            "postgres" | "postgresql" => {
                // The error of the parser may quote what it read.
                let options = PgConnectOptions::from_str(url)
                    .map_err(|_| wrong("the parts after the scheme cannot be read".to_owned()))?;
                let is_named = url.split_once('?').is_some_and(|(_, query)| {
                    query.split('&').any(|pair| pair.starts_with("sslmode=") || pair.starts_with("ssl-mode="))
                });
                let options =
                    if is_named || is_local(&options) { options } else { options.ssl_mode(PgSslMode::VerifyFull) };
                Ok(Self::Postgres(Box::new(options.application_name("mayfly"))))
            }
            _ => Err(wrong("the scheme is not known".to_owned())),
        }
    }

    /// The place for people: no user, no password.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(options) => {
                let database = options.get_database().unwrap_or_else(|| options.get_username());
                match options.get_socket() {
                    Some(socket) => format!("postgres:{}/{database}", socket.display()),
                    None => format!("postgres://{}:{}/{database}", options.get_host(), options.get_port()),
                }
            }
        }
    }
}

fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some()
        || host.starts_with('/')
        || ["localhost", "127.0.0.1", "::1", "[::1]"].contains(&host)
}

fn clipped(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric()).take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (String, Option<PgSslMode>) {
        let location = Location::parse(url).expect(url);
        let mode = match &location {
            Location::Sqlite(_) => None,
            Location::Postgres(options) => Some(options.get_ssl_mode()),
        };
        (location.name(), mode)
    }

    #[test]
    fn places_are_read_and_named_without_credentials() {
        assert_eq!(parsed("sqlite:/var/lib/mayfly/ledger.db").0, "sqlite:/var/lib/mayfly/ledger.db");
        assert_eq!(parsed("sqlite://ledger.db").0, "sqlite:ledger.db");
        let (name, mode) = parsed("postgres://mayfly:hunter2@db.example.com/ledger");
        assert_eq!(
            (name.as_str(), matches!(mode, Some(PgSslMode::VerifyFull))),
            ("postgres://db.example.com:5432/ledger", true)
        );
    }

    #[test]
    fn tls_is_left_out_only_where_asked_or_on_this_machine() {
        assert!(matches!(parsed("postgres://u@db:1/x?sslmode=disable").1, Some(PgSslMode::Disable)));
        assert!(matches!(parsed("postgres://u@127.0.0.1/x").1, Some(PgSslMode::Prefer)));
        assert!(matches!(parsed("postgres:///x?user=u&host=/run/pg").1, Some(PgSslMode::Prefer)));
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        for url in ["", "mysql://u:hunter2@h/x", "sqlite:", "sqlite::memory:", "postgres://u:hunter2@h:port/x"] {
            let text = Location::parse(url).err().expect(url).to_string();
            assert!(text.contains("names no ledger") && !text.contains("hunter2"), "{text}");
        }
    }
}
