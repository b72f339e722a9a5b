//! What the crate makes of material from a Sigstore instance: all that is honest gives exact facts, all that is not a reason.

mod discovery;
mod facts;
mod faults;
mod files;
mod made;
mod mutations;
mod refused;
mod registry;
mod tekton;
