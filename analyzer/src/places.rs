//! Where a path leads in the image, also where its last parts are made only in the container: links that exist are followed.

use dna::ImagePath;

use crate::Rootfs;

/// The path without the links in it; parts that do not exist, or stand for many names, stay as they are.
pub(crate) fn real(rootfs: &Rootfs, path: &ImagePath) -> ImagePath {
    let mut rest: Vec<Vec<u8>> = Vec::new();
    let mut at = path.clone();
    for _ in 0..MAX_PARTS {
        if let Ok(found) = rootfs.resolve(&at) {
            rest.reverse();
            return found.path.join(&rest.join(&b'/')).unwrap_or_else(|_| path.clone());
        }
        let Some(parent) = at.parent() else { break };
        rest.push(at.file_name().to_vec());
        at = parent;
    }
    path.clone()
}

/// Whether a path may be a file that a container writes: not one of the kernel's own file systems.
pub(crate) fn is_kept(path: &ImagePath) -> bool {
    let first = path.components().next().unwrap_or_default();
    !first.is_empty() && !first.contains(&b'*') && !matches!(first, b"dev" | b"proc" | b"sys")
}

/// Parts of one path.
const MAX_PARTS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_on_the_way_are_followed() {
        let mut rootfs = Rootfs::default();
        rootfs.put_file("/run/x", 0o644, "");
        rootfs.put_link("/var/run", "/run");
        let show = |path: &str| real(&rootfs, &path.parse().expect("a path")).to_string();
        assert_eq!(show("/var/run/a/*.pid"), "/run/a/*.pid");
        assert_eq!(show("/srv/a"), "/srv/a");
    }
}
