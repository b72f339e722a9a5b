//! Every limit on outside bytes, in one place, each with its reason. Time limits are errors, limits on work are unknowns.

use std::str::FromStr as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits on what is read from outside. All are settable; their values are part of the analyzer's rules digest (but for
/// time and memory, which never change what a DNA says).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one manifest, index or config: registries refuse manifests above 4 MiB (distribution-spec), so larger ones
    /// are hostile.
    pub manifest_bytes: u64,
    /// Manifests in one index: real multi-platform indexes have tens.
    pub index_manifests: u64,
    /// Index in index in index: real ones nest once.
    pub index_depth: u64,
    /// Layers of one image: overlayfs mounts at most 500 lower directories.
    pub layers: u64,
    /// Members of one image archive: `docker save` writes three a layer, and each costs memory.
    pub archive_members: u64,
    /// Compressed bytes of one image: ten times the largest images in common use.
    pub image_bytes: u64,
    /// Uncompressed bytes of one layer's archive.
    pub layer_bytes: u64,
    /// Uncompressed bytes of all layers together.
    pub total_bytes: u64,
    /// Uncompressed over compressed bytes of one layer, counted once 64 MiB came out: deflate cannot exceed 1,032, honest
    /// layers stay below 100, zeros in sparse files below 1,000.
    pub layer_ratio: u64,
    /// Entries (files, directories, links, whiteouts) in one layer.
    pub layer_entries: u64,
    /// Entries in all layers together: each costs memory.
    pub total_entries: u64,
    /// Components of one path: PATH_MAX (4096) allows 2,048.
    pub path_depth: u64,
    /// Bytes of one path in an archive: PATH_MAX is 4,096.
    pub path_bytes: u64,
    /// Bytes of one tar extension header (PAX record set, GNU long name): security xattrs are below 64 KiB each.
    pub tar_header_bytes: u64,
    /// Symbolic links followed in one lookup: the kernel's MAXSYMLINKS is 40.
    pub symlinks: u64,
    /// Bytes of one body kept for later steps when it is no program or archive; larger ones are unknown to readers.
    pub kept_file_bytes: u64,
    /// Bytes of one ELF file that is read whole.
    pub elf_bytes: u64,
    /// Bytes of one ELF file whose code is decoded: it is held in memory meanwhile. Node.js has 100 MiB, LLVM 120.
    pub code_bytes: u64,
    /// Bytes of one text (script, configuration, package record) that is parsed.
    pub text_bytes: u64,
    /// Bytes of one package database: the largest seen are rpm's, some 100 MiB.
    pub database_bytes: u64,
    /// Bytes read to find packages, all databases, programs and archives together: a file may have a million names.
    pub inventory_bytes: u64,
    /// Packages of one image.
    pub packages: u64,
    /// Entries of one zip archive (jar, wheel), and the nesting of such archives is at most three.
    pub zip_entries: u64,
    /// Bytes of one archive inside the image that is opened.
    pub zip_bytes: u64,
    /// Bytes of one archive inside another, which is held in memory while it is read.
    pub nested_zip_bytes: u64,
    /// Nodes of the exec closure.
    pub closure_programs: u64,
    /// Bytes of memory that may wait between two steps of the pipeline.
    pub queue_bytes: u64,
    /// Seconds for one analysis, the pull apart; running out is an error, so that a slow machine never makes another DNA.
    pub analysis_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        Self {
            manifest_bytes: 4 * MIB,
            index_manifests: 1_000,
            index_depth: 4,
            layers: 500,
            archive_members: 20_000,
            image_bytes: 100 * GIB,
            layer_bytes: 100 * GIB,
            total_bytes: 200 * GIB,
            layer_ratio: 1_040,
            layer_entries: 4_000_000,
            total_entries: 8_000_000,
            path_depth: 2_048,
            path_bytes: 4_096,
            tar_header_bytes: MIB,
            symlinks: 40,
            kept_file_bytes: 4 * MIB,
            elf_bytes: 512 * MIB,
            code_bytes: 192 * MIB,
            text_bytes: 4 * MIB,
            database_bytes: 512 * MIB,
            inventory_bytes: 4 * GIB,
            packages: 200_000,
            zip_entries: 200_000,
            zip_bytes: GIB,
            nested_zip_bytes: 64 * MIB,
            closure_programs: 10_000,
            queue_bytes: 16 * MIB,
            analysis_seconds: 600,
        }
    }
}

impl Limits {
    /// Sets one limit by its name, `"path_depth=100"`.
    ///
    /// # Errors
    /// [`LimitError`] when the text is not `NAME=NUMBER` or the name is none of the fields.
    pub fn set(&mut self, assignment: &str) -> Result<(), LimitError> {
        let error = || LimitError(assignment.chars().take(120).collect());
        let (name, number) = assignment.split_once('=').ok_or_else(error)?;
        let number = u64::from_str(number).map_err(|_| error())?;
        let mut fields = serde_json::to_value(&*self).map_err(|_| error())?;
        *fields.get_mut(name).ok_or_else(error)? = number.into();
        *self = serde_json::from_value(fields).map_err(|_| error())?;
        Ok(())
    }

    /// The names of all limits, sorted.
    pub fn names() -> Vec<String> {
        match serde_json::to_value(Self::default()) {
            Ok(serde_json::Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
            _ => Vec::new(),
        }
    }
}

/// An assignment that names no limit, or no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not set a limit: expected NAME=NUMBER, NAME one of {names}", names = Limits::names().join(", "))]
pub struct LimitError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_set_by_name() {
        let mut limits = Limits::default();
        assert_eq!(limits.set("path_depth=7"), Ok(()));
        assert_eq!(limits.path_depth, 7);
    }

    #[test]
    fn unknown_limits_are_refused_and_change_nothing() {
        let mut limits = Limits::default();
        for text in ["", "depth=1", "path_depth", "path_depth=-1", "path_depth=x"] {
            assert!(limits.set(text).is_err(), "{text}");
        }
        assert_eq!(limits, Limits::default());
    }
}
