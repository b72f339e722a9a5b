//! Opens a source and prints what it is: `cargo run -p oci --example open -- oci:DIR`, or with `--features registry` a
//! reference. A second argument `oci:DIR:NAME` keeps it there.

#![expect(clippy::print_stdout, reason = "an example")]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let source: oci::Source = arguments.next().ok_or("usage: open SOURCE [oci:DIR[:NAME]]")?.parse()?;
    #[cfg_attr(not(feature = "registry"), expect(unused_mut, reason = "only registries have settings"))]
    let mut options = oci::Options { all_platforms: std::env::var_os("ALL_PLATFORMS").is_some(), ..Default::default() };
    #[cfg(feature = "registry")]
    {
        options.registry.plain_http = std::env::var_os("PLAIN_HTTP").is_some();
        options.registry.ca_file = std::env::var_os("CA_FILE").map(Into::into);
        options.registry.cache =
            std::env::var_os("CACHE").map(|folder| oci::Cache::new(folder, oci::Cache::DEFAULT_BYTES));
    }
    if let Some(to) = arguments.next() {
        println!("{:?}", oci::pull(&source, &to.parse()?, &options)?);
        return Ok(());
    }
    for image in oci::open(&source, &options)? {
        println!("{} {} {:?}", image.name, image.platform, image.digests);
        if let oci::Contents::Layers(layers) = &image.contents {
            for layer in layers {
                match &layer.body {
                    oci::LayerBody::Present(blob) => println!("  {} {} bytes", layer.digest, blob.len()),
                    oci::LayerBody::Unreadable(why) => println!("  {} {why}", layer.digest),
                }
            }
        }
    }
    Ok(())
}
