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

#[cfg(test)]
mod tests {
    use dna::Limits;

    use crate::{
        Rootfs,
        inventory::{cargo, golang, inventory, sections},
    };

    #[test]
    fn a_program_holds_what_compilers_wrote() {
        let parts = [(".go.buildinfo", golang::fixture::inline()), (".dep-v0", cargo::fixture::section())];
        let mut root = Rootfs::default();
        root.put_file("/bin/x", 0o755, sections::fixture::elf(&parts));
        root.put_file("/share/x", 0o644, sections::fixture::elf(&parts));
        let found = inventory(&root, &Limits::default());
        let names: Vec<_> = found.packages.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a.org/b", "e.org/f", "g.org/h", "stdlib", "x.org/Main", "app", "serde"]);
        let owner = found.owner(&"/bin/x".parse().expect("no NUL")).expect("an owner");
        assert_eq!((owner.name.as_str(), owner.purl.as_str()), ("x.org/Main", "pkg:golang/x.org/main@v1.2.3"));
        assert!(found.unknowns.is_empty());
    }

    #[test]
    fn without_section_headers_go_is_found_in_the_data() {
        let mut file = sections::fixture::elf(&[("other", vec![0; 100]), (".go.buildinfo", golang::fixture::inline())]);
        // e_shoff, e_shnum, e_shstrndx: as after sstrip.
        for range in [40..48, 60..64] {
            file.get_mut(range).expect("a header").fill(0);
        }
        let mut root = Rootfs::default();
        root.put_file("/bin/x", 0o755, file);
        assert_eq!(inventory(&root, &Limits::default()).packages.len(), 5);
    }

    #[test]
    fn a_spoiled_crate_list_is_unknown() {
        let mut root = Rootfs::default();
        root.put_file("/bin/x", 0o755, sections::fixture::elf(&[(".dep-v0", b"no zlib".to_vec())]));
        let found = inventory(&root, &Limits::default());
        assert!(found.unknowns.first().is_some_and(|unknown| unknown.why.starts_with("section .dep-v0")));
    }
}
