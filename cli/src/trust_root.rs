//! `mayfly trust-root`: the trust root of an instance as its TUF repository has it now.

use std::time::Duration;

use anyhow::Context as _;
use trust::TufRepository;

use crate::{
    args::trust::{Instance, TrustRoot},
    output::{self, Destination},
    remote,
};

/// Writes the trust root.
pub(crate) fn run(args: &TrustRoot) -> anyhow::Result<()> {
    let repository = match (&args.tuf_url, &args.tuf_root, args.instance) {
        (Some(url), Some(root), _) => TufRepository::custom(url, url, &output::read(root)?),
        (_, _, Instance::PublicGood) => TufRepository::public_good(),
        (_, _, Instance::Github) => TufRepository::github(),
    };
    let repository = repository.with_authorities(args.ca_file.as_deref().map(output::read).transpose()?);
    let usual = || Some(oci::Cache::default_folder()?.parent()?.join("trust"));
    let cache = args.cache_dir.clone().or_else(usual).context("there is no cache folder: name one with --cache-dir")?;
    let limit = Duration::from_secs(args.timeout);
    let root = remote::block_on(remote::within(limit, async {
        Ok(match args.offline {
            true => trust::cached(&repository, &cache).await?,
            false => trust::refresh(&repository, &cache).await?,
        })
    }))?;
    Destination(args.output.clone()).write(root.json())
}
