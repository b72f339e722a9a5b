//! Certificates that somebody else looks after, in mounted files. They are read again by content: the kubelet exchanges a
//! symbolic link to a folder, of which a watch on the files learns nothing.

use std::path::{Path, PathBuf};

use tokio::{fs::File, io::AsyncReadExt as _};

use crate::{Error, Pair, Serving, pair::MAX_PEM_BYTES};

/// Files that hold a certificate, as cert-manager and Secrets of type `kubernetes.io/tls` name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    /// The chain, leaf first, in PEM.
    pub certificate: PathBuf,
    /// The leaf's key, in PEM.
    pub key: PathBuf,
}

impl FileSource {
    /// `tls.crt` and `tls.key` of a folder.
    pub fn folder(folder: &Path) -> Self {
        Self { certificate: folder.join("tls.crt"), key: folder.join("tls.key") }
    }

    /// Serves what is in the files now. What is broken, or half exchanged, leaves what was served before.
    pub(crate) async fn look(&self, serving: &Serving) -> Result<(), Error> {
        let (chain, key) = (read(&self.certificate).await?, read(&self.key).await?);
        let pair = Pair::parse(&self.certificate.display().to_string(), &chain, &key, serving.provider())?;
        let until = pair.not_after();
        if serving.replace(pair) {
            tracing::info!(file = %self.certificate.display(), %until, "serving a new certificate");
        }
        Ok(())
    }
}

/// A file, up to what such files have.
pub(crate) async fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = async {
        let file = File::open(path).await?;
        file.take(MAX_PEM_BYTES as u64 + 1).read_to_end(&mut bytes).await
    };
    match read.await {
        Ok(_) => Ok(bytes),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, time::Duration};

    use jiff::Timestamp;

    use super::*;
    use crate::{
        Authority, Lifetimes, ServingOptions, Source,
        probe::{BOTH, client, shake},
        run_every,
    };

    fn authority() -> Authority {
        Authority::begin(&["a.svc".to_owned()].into(), &Lifetimes::default(), Timestamp::now()).expect("issued")
    }

    /// As the kubelet does: a folder of files, `..data` to it, and links through that; then another folder in one exchange.
    fn mount(folder: &Path, version: u32, chain: &str, key: &str) {
        let data = folder.join(format!("..{version}"));
        fs::create_dir(&data).expect("a folder");
        fs::write(data.join("tls.crt"), chain).expect("written");
        fs::write(data.join("tls.key"), key).expect("written");
        symlink(data.file_name().expect("a name"), folder.join("..data_tmp")).expect("linked");
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("exchanged");
        for file in ["tls.crt", "tls.key"] {
            let _ = symlink(format!("..data/{file}"), folder.join(file));
        }
    }

    #[tokio::test]
    async fn mounted_files_are_followed_and_broken_ones_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let serving = Serving::new(&ServingOptions::default()).expect("TLS");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let source = Source::Files(FileSource::folder(folder.path()));
        let task = tokio::spawn(run_every(source, serving.clone(), Duration::from_millis(10), async {
            let _ = stopped.await;
        }));
        let served = |authority: &Authority| {
            shake(serving.config(), client(&authority.bundle(), None, Timestamp::now(), BOTH)).is_ok()
        };
        let until = async |what: &dyn Fn() -> bool| {
            for _ in 0..1000 {
                if what() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("not within five seconds: {:?}", serving.status(Timestamp::now()));
        };
        let problem = |text: &str| {
            let problem = serving.status(Timestamp::now()).problem;
            problem.is_some_and(|problem| problem.contains(text))
        };
        // Not mounted yet.
        until(&|| problem("tls.crt")).await;
        assert!(!serving.is_ready());
        let (one, two) = (authority(), authority());
        mount(folder.path(), 1, one.leaf().0, one.leaf().1);
        until(&|| served(&one)).await;
        until(&|| serving.status(Timestamp::now()).problem.is_none()).await;
        for (version, chain, key, what) in [
            (2, two.leaf().0, one.leaf().1, "do not belong together"),
            (3, "garbage", two.leaf().1, "no certificate"),
            (4, two.leaf().0, "garbage", "no private key"),
        ] {
            mount(folder.path(), version, chain, key);
            until(&|| problem(what)).await;
            assert!(served(&one), "the last good one stays");
        }
        mount(folder.path(), 5, two.leaf().0, two.leaf().1);
        until(&|| served(&two)).await;
        assert!(!served(&one));
        fs::remove_file(folder.path().join("..data")).expect("removed");
        until(&|| problem("tls.crt")).await;
        assert!(served(&two));
        stop.send(()).expect("it runs");
        task.await.expect("it ends");
    }

    #[tokio::test]
    async fn a_file_that_never_ends_is_refused() {
        let serving = Serving::new(&ServingOptions::default()).expect("TLS");
        let source = FileSource { certificate: "/dev/zero".into(), key: "/dev/zero".into() };
        let error = source.look(&serving).await.expect_err("a refusal");
        assert!(error.to_string().contains("/dev/zero: larger than"), "{error}");
    }
}
