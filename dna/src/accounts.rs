//! Who exists in an image and who owns what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ImagePath;

/// The image's account databases, passwd(5) and group(5), in file order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Accounts {
    /// Entries of `/etc/passwd`.
    pub users: Vec<User>,
    /// Entries of `/etc/group`.
    pub groups: Vec<Group>,
}

/// An entry of `/etc/passwd`; the password field is never kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Number of the login group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// An entry of `/etc/group`; the password field is never kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    /// Group name.
    pub name: String,
    /// Group number.
    pub gid: u32,
    /// Login names of its further members.
    pub members: Vec<String>,
}

/// Owner and mode of a folder that behavior touches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Folder {
    /// The folder.
    pub path: ImagePath,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits with setuid, setgid and sticky, 0 to 0o7777.
    pub mode: u32,
}
