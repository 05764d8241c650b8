//! Why a request at the admin port is not done, as the JSON that says so. Pure.

use serde::Serialize;

use super::json;

/// A fault: the status, and the words that name the value and the rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) status: u16,
    pub(crate) message: String,
}

#[derive(Serialize)]
struct Body<'f> {
    status: u16,
    error: &'f str,
}

impl Fault {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// A parameter of the query that breaks a rule.
    pub(crate) fn parameter(name: &str, value: &str, rule: &str) -> Self {
        Self::new(400, format!("{}={value:?}: {rule}", name.escape_debug()))
    }

    /// It as JSON.
    pub(crate) fn json(&self) -> Vec<u8> {
        let body = Body { status: self.status, error: &self.message };
        // A number and a string can always be written.
        json::write(&body).unwrap_or_default().into_bytes()
    }
}
