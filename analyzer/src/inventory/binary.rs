//! Packages that compilers write into programs: each ELF file's layout is read once, for Go and Rust alike.

use super::{Catalog, cargo, golang, sections::Sections, tree::Tree};
use crate::Resolved;

/// The packages inside the programs and libraries of the tree.
pub(super) fn catalog(tree: &Tree) -> Catalog {
    let mut catalog = Catalog::default();
    for found in tree.files.iter().filter(|found| may_be_code(tree, found)) {
        let read = Sections::read(tree, found.inode).and_then(|sections| match sections {
            Some(sections) => {
                golang::catalog(tree, found, &sections, &mut catalog)?;
                cargo::catalog(tree, found, &sections, &mut catalog)
            }
            None => Ok(()),
        });
        if let Err(error) = read {
            catalog.unknown(&found.path, error);
        }
    }
    catalog
}

/// Programs have an execute bit; libraries may lack it, but are named `.so`.
fn may_be_code(tree: &Tree, found: &Resolved) -> bool {
    let executable = tree.rootfs.inode(found.inode).meta.mode & 0o111 != 0;
    executable || memchr::memmem::find(found.path.file_name(), b".so").is_some()
}
