//! Rules over what is known of an image and its pod: read, checked, and decided, without I/O.
//!
//! ```text
//! files, objects ─load──► Rules        every expression compiled, every name known, or an error with file and line
//!                          │
//! Review ─matching──► which are asked ─needs──► what must be gathered of each image      (whoever calls gathers it)
//!                          │
//! Review + facts + now ─decide──► Decision { verdict, reasons, … }
//! ```
//!
//! [`decide`] is one function for everybody who decides: the webhook, the command line, every check made again later. A
//! decision has no default, and what is not known is never taken for what is not so.
//!
//! ```
//! use policies::{Review, Verdict, decide, load};
//!
//! let rule = "
//! apiVersion: mayfly.dev/v1alpha1
//! kind: ClusterImageRule
//! metadata: {name: by-digest}
//! spec: {tags: RequireDigest, enforcement: Always}
//! ";
//! let rules = load([("rule.yaml", rule)]).expect("a rule");
//! let review = Review {
//!     object: serde_json::json!({"spec": {"containers": [{"name": "web", "image": "nginx"}]}}),
//!     ..serde_json::from_str(r#"{"request": {"kind": {"version": "v1", "kind": "Pod"}}}"#).expect("a request")
//! };
//! // Nothing was gathered about the image: that is no reason to admit it.
//! assert_eq!(decide(&review, &rules, jiff::Timestamp::UNIX_EPOCH).verdict, Verdict::Deny);
//! ```

pub mod admission;
pub mod cases;
pub mod cel;
pub mod convert;
mod decide;
mod decision;
mod documents;
pub mod kinds;
mod load;
mod matching;
pub mod objects;
pub mod report;
mod review;
mod rules;
pub mod runtime;
mod shipped;
mod watch;

pub use decide::{ENFORCE_LABEL, decide};
pub use decision::{About, AdmittedUnknown, Decision, Effect, Reason, RuleVersion, UsedException, Verdict};
pub use load::{LoadError, load, load_texts};
pub use matching::{Matching, Needs, readable};
pub use review::{GroupVersionKind, GroupVersionResource, Request, Review, UserInfo};
pub use rules::{AcceptedSigner, Material, Rule, Rules};
pub use shipped::shipped;
pub use watch::Watch;
