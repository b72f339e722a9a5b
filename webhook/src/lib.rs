//! The validating webhook.
