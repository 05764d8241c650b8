//! What is wrong with a setting.

/// One fault of the settings: the variable, the value and the rule that it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A setting without default was not given.
    #[error("{variable} is not set: {rule}")]
    Missing {
        /// The environment variable.
        variable: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// A value breaks the rule of its setting.
    #[error("{variable}={value:?}: {rule}")]
    Invalid {
        /// The environment variable.
        variable: &'static str,
        /// The value, or the part of it that is wrong.
        value: String,
        /// What it must be.
        rule: String,
    },
    /// Two settings do not go together.
    #[error("{one} and {other} contradict: {rule}")]
    Contradiction {
        /// One setting, with its value.
        one: String,
        /// The other one, with its value.
        other: String,
        /// Why, and what to do.
        rule: &'static str,
    },
}
